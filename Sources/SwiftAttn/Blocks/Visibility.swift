/// Masks as torch.nn takes them, turned into what attention takes.

import CAttnKernels

/// Which keys a block's queries may see. In bool masks true hides, as in torch.nn; float masks are added to the scores.
public struct Visibility: Sendable {
    /// (T, S) or (B * heads, T, S), bool or floating.
    public var attentionMask: Tensor?
    /// (B, S), or (S,) without a batch; bool or floating.
    public var keyPaddingMask: Tensor?
    /// Key j is hidden from query i < j, on top of the masks.
    public var isCausal: Bool

    public init(attentionMask: Tensor? = nil, keyPaddingMask: Tensor? = nil, isCausal: Bool = false) {
        self.attentionMask = attentionMask
        self.keyPaddingMask = keyPaddingMask
        self.isCausal = isCausal
    }
}

/// The shapes of an attention that masks are for. `extra` keys behind the others are always visible.
struct MaskedShape {
    let batch, heads, queries, keys: Int
    var extra = 0
    let dtype: DType
    let isBatched: Bool
}

/// A visibility as options of attention, and the memory that these borrow.
struct ResolvedVisibility {
    private(set) var options = AttentionOptions()
    private var memory: [Value] = []

    /// Query i, at position `first` + i, sees the keys up to there.
    init(causalFrom first: Int) {
        options.causal = .upperLeft
        options.queryOffset = first
    }

    /// Packed sequences know no masks.
    init(packed visibility: Visibility) throws(Failure) {
        for (name, mask) in [("attn_mask", visibility.attentionMask), ("key_padding_mask", visibility.keyPaddingMask)]
        where mask != nil {
            throw .argument("\(name): expected none, packed sequences have their own lengths")
        }
        options.causal = visibility.isCausal ? .upperLeft : .none
    }

    init(_ visibility: Visibility, _ shape: MaskedShape, _ names: (mask: StaticString, padding: StaticString),
         _ pass: Pass) throws(Failure) {
        let mask = try visibility.attentionMask.map { (mask) throws(Failure) in try shape.checked(mask, names.mask) }
        var padding = try visibility.keyPaddingMask.map { (mask) throws(Failure) in
            try shape.checkedPadding(mask, names.padding)
        }
        if shape.extra == 0, let lengths = padding?.visiblePrefixes() {
            /* Keys that are hidden at the end alone are not even read. */
            let value = try pass.value(.int64, [shape.batch])
            for (b, length) in lengths.enumerated() {
                value.tensor.pointer(byOffset: b).storeBytes(of: Int64(length), as: Int64.self)
            }
            options.keyValueLengths = value.tensor
            memory.append(value)
            padding = nil
        }
        let isCausalByMask = visibility.isCausal && shape.extra > 0
        if visibility.isCausal && !isCausalByMask { options.causal = .upperLeft }
        if mask == nil && padding == nil && !isCausalByMask { return }
        if let mask, padding == nil, shape.extra == 0, mask.dtype != .bool {
            let kept = try pass.keep(mask)
            options.mask = kept.tensor
            memory.append(kept)
            return
        }
        let combined = try CombinedMask(mask, padding, isCausal: isCausalByMask, shape).write(pass)
        options.mask = combined.tensor
        memory.append(combined)
    }
}

extension MaskedShape {
    /// The mask as (1 or B, 1 or heads, T, S).
    fileprivate func checked(_ mask: Tensor, _ name: StaticString) throws(Failure) -> Tensor {
        try expectMask(mask, name)
        if mask.rank == 2 {
            try mask.expect(shape: [queries, keys], name)
            return mask.reshaped([1, 1, queries, keys], strides: [0, 0, mask.strides[0], mask.strides[1]])
        }
        guard mask.rank == 3 else { throw .shape("\(name): rank is \(mask.rank), expected 2 or 3") }
        try mask.expect(shape: [batch * heads, queries, keys], name)
        return mask.reshaped([batch, heads, queries, keys],
                             strides: [mask.strides[0] &* heads, mask.strides[0], mask.strides[1], mask.strides[2]])
    }

    /// The mask as (B, S).
    fileprivate func checkedPadding(_ mask: Tensor, _ name: StaticString) throws(Failure) -> Tensor {
        try expectMask(mask, name)
        if isBatched {
            try mask.expect(shape: [batch, keys], name)
            return mask
        }
        try mask.expect(shape: [keys], name)
        return mask.reshaped([1, keys], strides: [0, mask.strides[0]])
    }

    private func expectMask(_ mask: Tensor, _ name: StaticString) throws(Failure) {
        try mask.check(name)
        guard mask.dtype == .bool || mask.dtype == .float32 || mask.dtype == dtype else {
            throw .dtype("\(name): dtype is \(mask.dtype), expected bool, float32\(dtype == .float32 ? "" : " or \(dtype)")")
        }
    }
}

extension Tensor {
    /// For each row of a bool (B, S) mask whose true entries are its last ones: how many come before. Else nil.
    fileprivate func visiblePrefixes() -> [Int]? {
        guard dtype == .bool else { return nil }
        var lengths: [Int] = []
        for b in 0..<shape[0] {
            let row = pointer(byOffset: b &* strides[0])
            var length = 0
            while length < shape[1], !row.isSet(length &* strides[1]) { length += 1 }
            for s in length..<shape[1] where !row.isSet(s &* strides[1]) { return nil }
            lengths.append(length)
        }
        return lengths
    }
}

extension UnsafeMutableRawPointer {
    fileprivate func isSet(_ offset: Int) -> Bool { load(fromByteOffset: offset, as: UInt8.self) != 0 }
}

/// All masks in one, (1 or B, 1 or heads, 1 or T, S + extra): bool with true for visible, if none of them is floating.
private struct CombinedMask {
    let mask, padding: Tensor?
    let isCausal: Bool
    let shape: MaskedShape
    let counts: (batch: Int, heads: Int, rows: Int)

    init(_ mask: Tensor?, _ padding: Tensor?, isCausal: Bool, _ shape: MaskedShape) {
        self.mask = mask
        self.padding = padding
        self.isCausal = isCausal
        self.shape = shape
        counts = (padding == nil ? mask?.shape[0] ?? 1 : shape.batch, mask?.shape[1] ?? 1,
                  mask == nil && !isCausal ? 1 : shape.queries)
    }

    func write(_ pass: Pass) throws(Failure) -> Value {
        let isBool = (mask?.dtype ?? .bool) == .bool && (padding?.dtype ?? .bool) == .bool
        let dtype = isBool ? DType.bool : shape.dtype.computing
        let columns = shape.keys + shape.extra
        let result = try pass.value(dtype, [counts.batch, counts.heads, counts.rows, columns])
        if result.tensor.isEmpty { return result }
        for b in 0..<counts.batch {
            for h in 0..<counts.heads {
                for t in 0..<counts.rows {
                    let row = result.tensor.pointer(byOffset: ((b * counts.heads + h) * counts.rows + t) * columns)
                    switch dtype {
                    case .bool: writeBools(row.assumingMemoryBound(to: UInt8.self), b, h, t)
                    case .float64: writeReals(row.assumingMemoryBound(to: Double.self), b, h, t)
                    default: writeReals(row.assumingMemoryBound(to: Float.self), b, h, t)
                    }
                }
            }
        }
        return result
    }

    /// Where the row of the attention mask begins.
    private func maskRow(_ mask: Tensor, _ b: Int, _ h: Int, _ t: Int) -> UnsafeRawPointer {
        let offset = (mask.shape[0] == 1 ? 0 : b &* mask.strides[0]) &+ h &* mask.strides[1] &+ t &* mask.strides[2]
        return UnsafeRawPointer(mask.pointer(byOffset: offset))
    }

    private func writeBools(_ row: UnsafeMutablePointer<UInt8>, _ b: Int, _ h: Int, _ t: Int) {
        for s in 0..<shape.keys + shape.extra { row[s] = 1 }
        hide(mask, mask.map { maskRow($0, b, h, t) }) { row[$0] = 0 }
        hide(padding, padding.map { UnsafeRawPointer($0.pointer(byOffset: b &* $0.strides[0])) }) { row[$0] = 0 }
        if isCausal { for s in min(t + 1, shape.keys)..<shape.keys { row[s] = 0 } }
    }

    private func writeReals<R: Real>(_ row: UnsafeMutablePointer<R>, _ b: Int, _ h: Int, _ t: Int) {
        for s in 0..<shape.keys + shape.extra { row[s] = 0 }
        add(mask, mask.map { maskRow($0, b, h, t) }, row)
        add(padding, padding.map { UnsafeRawPointer($0.pointer(byOffset: b &* $0.strides[0])) }, row)
        if isCausal { for s in min(t + 1, shape.keys)..<shape.keys { row[s] = -.infinity } }
    }

    /// Calls `body` with each key that a bool mask's row hides.
    @inline(__always)
    private func hide(_ mask: Tensor?, _ row: UnsafeRawPointer?, _ body: (Int) -> Void) {
        guard let mask, let row else { return }
        let step = mask.strides[mask.rank - 1]
        for s in 0..<shape.keys where row.load(fromByteOffset: s &* step, as: UInt8.self) != 0 { body(s) }
    }

    private func add<R: Real>(_ mask: Tensor?, _ source: UnsafeRawPointer?, _ row: UnsafeMutablePointer<R>) {
        guard let mask, let source else { return }
        if mask.dtype == .bool { return hide(mask, source) { row[$0] = -.infinity } }
        let step = mask.strides[mask.rank - 1] &* mask.dtype.size
        for s in 0..<shape.keys {
            let place = source + s &* step
            switch mask.dtype {
            case .float64: row[s] += R(place.load(as: Double.self))
            case .float32: row[s] += R(place.load(as: Float.self))
            default:
                var number: Float = 0
                attn_load_row(mask.dtype.kernel, place, 1, 1, &number)
                row[s] += R(number)
            }
        }
    }
}
