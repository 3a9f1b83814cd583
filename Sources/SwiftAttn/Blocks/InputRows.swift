/// Inputs of layers and stacks: the shapes that torch.nn allows, checked.

/// Names of masks in errors.
typealias MaskNames = (mask: StaticString, padding: StaticString)
let selfNames: MaskNames = ("attn_mask", "key_padding_mask")
let memoryNames: MaskNames = ("memory.attn_mask", "memory.key_padding_mask")
let sourceNames: MaskNames = ("src.attn_mask", "src.key_padding_mask")

/// Rows (B, T, E), (T, E) without a batch, or packed (rows, E) with offsets.
struct InputRows {
    /// (B, T, E), or packed (rows, E).
    let value: Value
    private let isBatched: Bool
    private let keptOffsets: Value?
    private var offsets: Tensor? { keptOffsets?.tensor }

    /// What a recorded pass reads again beside the rows.
    var kept: [Value] { keptOffsets.map { [$0] } ?? [] }

    init(_ x: Tensor, _ name: StaticString, _ options: LayerOptions, starts: Tensor?,
         _ startsName: StaticString, _ pass: Pass) throws(Failure) {
        try x.checked(name).expect(dtype: options.dtype, name, as: "the module")
        try x.expect(rank: starts == nil ? 2...3 : 2...2, name)
        guard x.shape[x.rank - 1] == options.width else {
            throw .shape("\(name): shape is \(x.shape), expected \(options.width) in the last dim")
        }
        if let starts { _ = try starts.cumulative(startsName, total: x.shape[0]) }
        isBatched = x.rank == 3
        keptOffsets = try starts.map { (starts) throws(Failure) in try pass.keep(starts) }
        value = try pass.keep(starts == nil ? x.asBatch : x)
    }

    /// Another tensor of the caller's in the shape that `value` has.
    func shaped(_ other: Tensor) -> Tensor { offsets == nil ? other.asBatch : other }

    /// Both are batches of one size, or both alone, or both packed.
    func expectBatch(of other: InputRows, _ name: StaticString, as otherName: StaticString) throws(Failure) {
        guard isBatched == other.isBatched, (offsets == nil) == (other.offsets == nil) else {
            throw .shape("\(name): is \(form), \(otherName) is \(other.form)")
        }
        if let offsets, let others = other.offsets, offsets.shape != others.shape {
            throw .shape("memory_cu_seqlens: length is \(offsets.shape[0]), cu_seqlens has \(others.shape[0])")
        }
        guard offsets != nil || value.tensor.shape[0] == other.value.tensor.shape[0] else {
            throw .shape("\(name): batch is \(value.tensor.shape[0]), \(otherName) has \(other.value.tensor.shape[0])")
        }
    }

    private var form: String { offsets != nil ? "packed" : isBatched ? "a batch" : "without a batch" }

    /// Offsets of these rows as queries on the keys of others.
    func starts(_ keys: InputRows) -> Starts? {
        guard let offsets, let others = keys.offsets else { return nil }
        return Starts(queries: offsets, keys: others)
    }

    /// What these rows see of others.
    func resolve(_ visibility: Visibility, heads: Int, keys: InputRows, _ names: MaskNames, _ pass: Pass) throws(Failure)
        -> ResolvedVisibility {
        if offsets != nil { return try ResolvedVisibility(packed: visibility) }
        let shape = MaskedShape(batch: value.tensor.shape[0], heads: heads, queries: value.tensor.shape[1],
                                keys: keys.value.tensor.shape[1], dtype: value.tensor.dtype, isBatched: isBatched)
        return try ResolvedVisibility(visibility, shape, names, pass)
    }
}

extension Output {
    /// An input, and all that a call borrows.
    func expectApart(from input: Tensor, _ name: StaticString, _ call: LayerCall) throws(Failure) {
        try expectApart(from: input, "\(name)")
        let masks = [("", call.visibility), ("memory.", call.memoryVisibility), ("src.", call.sourceVisibility)]
        for (prefix, visibility) in masks {
            try expectApart(from: visibility.attentionMask, "\(prefix)attn_mask")
            try expectApart(from: visibility.keyPaddingMask, "\(prefix)key_padding_mask")
        }
        try expectApart(from: call.starts, "cu_seqlens")
        try expectApart(from: call.memoryStarts, "memory_cu_seqlens")
    }
}
