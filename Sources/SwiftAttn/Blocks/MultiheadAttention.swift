/// Multi-head attention as a block: projections, heads, and their concatenation.

import CAttnKernels

/// How positions enter a block.
public enum Positions: Int32, Sendable {
    case none = 0
    /// Queries and keys are rotated by their positions.
    case rope = 1
    /// Scores fall with the distance.
    case alibi = 2
}

/// What `MultiheadAttention` is made of; E is `embedDim`, D the head dim E / `heads`.
public struct MultiheadAttentionOptions: Sendable {
    public var embedDim: Int
    public var heads: Int
    /// Divides `heads`; nil is as many.
    public var keyValueHeads: Int?
    /// Widths of key and value rows; nil is E.
    public var keyDim: Int?
    public var valueDim: Int?
    public var hasBias = true
    public var hasOutputProjection = true
    /// A learned key and value behind the others.
    public var addsBiasKeyValue = false
    /// A key and value of zeros behind the others.
    public var addsZeroAttention = false
    /// Of the scores; nil is 1/sqrt(D).
    public var scale: Double?
    /// Of the weights, in training.
    public var dropout = 0.0
    /// Of the result before a layer adds its residual, in training.
    var outputDropout = 0.0
    public var positions = Positions.none
    public var dtype = DType.float32
    public var precision = Precision.highest

    public init(embedDim: Int, heads: Int) {
        self.embedDim = embedDim
        self.heads = heads
    }

    /// Largest width and count that is taken; products of two of them stay far from overflow.
    static let largest = 1 << 24

    func validated() throws(Failure) -> MultiheadAttentionOptions {
        for (name, size) in [("embed_dim", embedDim), ("num_heads", heads), ("num_kv_heads", keyValueHeads ?? 1),
                             ("kdim", keyDim ?? 1), ("vdim", valueDim ?? 1)]
        where !(1...Self.largest).contains(size) {
            throw .argument("\(name): expected 1 to \(Self.largest), got \(size)")
        }
        guard embedDim % heads == 0 else {
            throw .argument("embed_dim: expected a multiple of num_heads, got \(embedDim) and \(heads)")
        }
        guard heads % (keyValueHeads ?? heads) == 0 else {
            throw .argument("num_kv_heads: expected a divisor of num_heads, got \(keyValueHeads!) and \(heads)")
        }
        guard dropout >= 0, dropout < 1 else { throw .argument("dropout: expected 0 <= dropout < 1, got \(dropout)") }
        if let scale, !scale.isFinite { throw .argument("scale: expected a finite number, got \(scale)") }
        guard positions != .rope || embedDim / heads % 2 == 0 else {
            throw .argument("positions: rope turns pairs, expected an even head dim, got \(embedDim / heads)")
        }
        guard dtype.isFloating else {
            throw .dtype("dtype: is \(dtype), expected float32, float16, bfloat16 or float64")
        }
        return self
    }
}

/// out = concat(softmax(scale * Q_h K_hᵀ) V_h) W_oᵀ + b_o, with Q, K, V projected from query, key and value.
///
/// Parameters, with torch.nn's names: in_proj_weight (E + 2 * kvE, E) where key and value are E wide, else q_proj_weight
/// (E, E), k_proj_weight (kvE, keyDim), v_proj_weight (kvE, valueDim); in_proj_bias (E + 2 * kvE,); bias_k, bias_v
/// (1, 1, kvE); out_proj.weight (E, E), out_proj.bias (E,). kvE is keyValueHeads * D.
public final class MultiheadAttention: Module, @unchecked Sendable {
    public let options: MultiheadAttentionOptions
    let headDim, keyValueHeads, keyValueWidth: Int
    private let fused: Parameter?
    private let separate: (query: Parameter, key: Parameter, value: Parameter)?
    private let bias: Parameter?
    private let extra: (key: Parameter, value: Parameter)?
    private let output: (weight: Parameter, bias: Parameter?)?
    private let slopes: Parameter?
    private let rotation: Rotation?

    public init(_ given: MultiheadAttentionOptions) throws(Failure) {
        try Library.requireKernels()
        options = try given.validated()
        let width = options.embedDim, dtype = options.dtype
        headDim = width / options.heads
        keyValueHeads = options.keyValueHeads ?? options.heads
        keyValueWidth = keyValueHeads * headDim
        let keyDim = options.keyDim ?? width, valueDim = options.valueDim ?? width
        let isFused = keyDim == width && valueDim == width
        fused = isFused ? try Parameter(dtype, [width + 2 * keyValueWidth, width]) : nil
        separate = isFused ? nil : (try Parameter(dtype, [width, width]), try Parameter(dtype, [keyValueWidth, keyDim]),
                                    try Parameter(dtype, [keyValueWidth, valueDim]))
        bias = options.hasBias ? try Parameter(dtype, [width + 2 * keyValueWidth]) : nil
        extra = options.addsBiasKeyValue
            ? (try Parameter(dtype, [1, 1, keyValueWidth]), try Parameter(dtype, [1, 1, keyValueWidth])) : nil
        output = options.hasOutputProjection
            ? (try Parameter(dtype, [width, width]), options.hasBias ? try Parameter(dtype, [width]) : nil) : nil
        slopes = options.positions == .alibi ? try Parameter(dtype.computing, [options.heads]) : nil
        if let slopes { try alibiSlopes(out: slopes.tensor) }
        rotation = options.positions == .rope ? Rotation(dim: headDim, dtype: dtype) : nil
        super.init([("in_proj_weight", fused), ("q_proj_weight", separate?.query), ("k_proj_weight", separate?.key),
                    ("v_proj_weight", separate?.value), ("in_proj_bias", bias), ("bias_k", extra?.key),
                    ("bias_v", extra?.value), ("out_proj.weight", output?.weight), ("out_proj.bias", output?.bias)])
    }

    /// Keys behind those of the caller.
    var extraKeys: Int { (options.addsBiasKeyValue ? 1 : 0) + (options.addsZeroAttention ? 1 : 0) }
}

// MARK: Parts that other blocks run

/// Projected keys and values, as heads.
struct ProjectedKeys {
    let key, value: Tensor
    /// Where they lie; those of a cache lie elsewhere.
    fileprivate var places: (key: HeadPlace, value: HeadPlace)?

    fileprivate init(_ key: HeadPlace, _ value: HeadPlace) {
        self.key = key.tensor
        self.value = value.tensor
        places = (key, value)
    }

    init(_ cache: KVCache) {
        key = cache.keys
        value = cache.values
    }
}

/// Heads in the columns of a value.
private struct HeadPlace {
    let whole: Value
    let column, count, dim: Int

    var tensor: Tensor { whole.heads(from: column, count: count, dim: dim) }

    /// The same place in the value's gradient. The heads of a value are apart and cover it, so each writes its own.
    func gradient(_ pass: Pass) throws(Failure) -> Tensor {
        if whole.gradient == nil { whole.gradient = try pass.value(whole.tensor.dtype, whole.tensor.shape) }
        return whole.gradient!.heads(from: column, count: count, dim: dim)
    }
}

extension MultiheadAttention {
    private var queryRows: Range<Int> { 0..<options.embedDim }
    private var keyRows: Range<Int> { options.embedDim..<options.embedDim + keyValueWidth }
    private var valueRows: Range<Int> { keyRows.upperBound..<keyRows.upperBound + keyValueWidth }

    private var queryWeight: ParameterRows { fused?[queryRows] ?? separate!.query.all }
    private var keyWeight: ParameterRows { fused?[keyRows] ?? separate!.key.all }
    private var valueWeight: ParameterRows { fused?[valueRows] ?? separate!.value.all }

    /// K and V of memory rows; done once, they serve any number of queries.
    func projectKeys(_ key: Value, _ value: Value, starts: Tensor? = nil, _ pass: Pass) throws(Failure) -> ProjectedKeys {
        if key === value, extraKeys == 0, let fused {
            let rows = keyRows.lowerBound..<valueRows.upperBound
            return try keys(of: pass.linear(key, fused[rows], bias?[rows]), from: 0, starts: starts)
        }
        let k = try project(key, keyWeight, bias?[keyRows], extra?.key, pass)
        let v = try project(value, valueWeight, bias?[valueRows], extra?.value, pass)
        let place = HeadPlace(whole: k, column: 0, count: keyValueHeads, dim: headDim)
        try rotation?.turn(place.tensor, starts: starts)
        return ProjectedKeys(place, HeadPlace(whole: v, column: 0, count: keyValueHeads, dim: headDim))
    }

    /// K and V that lie side by side.
    private func keys(of both: Value, from column: Int, position: Int = 0, starts: Tensor?) throws(Failure) -> ProjectedKeys {
        let place = HeadPlace(whole: both, column: column, count: keyValueHeads, dim: headDim)
        try rotation?.turn(place.tensor, from: position, starts: starts)
        return ProjectedKeys(place, HeadPlace(whole: both, column: column + keyValueWidth, count: keyValueHeads, dim: headDim))
    }

    /// A projection with the extra keys behind it.
    private func project(_ x: Value, _ weight: ParameterRows, _ bias: ParameterRows?, _ learned: Parameter?,
                         _ pass: Pass) throws(Failure) -> Value {
        if extraKeys == 0 { return try pass.linear(x, weight, bias) }
        let batch = x.tensor.shape[0], keys = x.tensor.shape[1], width = weight.range.count
        let whole = try pass.value(x.tensor.dtype, [batch, keys + extraKeys, width])
        var first = whole.tensor
        first.shape[1] = keys
        _ = try pass.linear(x, weight, bias, out: first)
        let bytes = width * x.tensor.dtype.size
        for b in 0..<batch {
            var row = whole.tensor.pointer(byOffset: (b * (keys + extraKeys) + keys) * width)
            if let learned {
                row.copyMemory(from: learned.tensor.data!, byteCount: bytes)
                row += bytes
            }
            if options.addsZeroAttention { row.initializeMemory(as: UInt8.self, repeating: 0, count: bytes) }
        }
        return whole
    }

    /// residual + the block's output, (B, T, E), or (rows, E) where `starts` says where sequences begin.
    /// weights: (B, heads, T, S).
    func attend(_ query: Value, _ key: Value, _ value: Value, _ visible: ResolvedVisibility, starts: Starts? = nil,
                residual: Value? = nil, out: Tensor? = nil, weights: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        if query === key, key === value, extraKeys == 0, let fused {
            let all = try pass.linear(query, fused.all, bias?.all)
            let own = try keys(of: all, from: options.embedDim, starts: starts?.keys)
            return try attend(all, own, visible, starts, residual, out, weights, pass)
        }
        let q = try pass.linear(query, queryWeight, bias?[queryRows])
        return try attend(q, projectKeys(key, value, starts: starts?.keys, pass), visible, starts, residual, out, weights, pass)
    }

    /// The same of keys that are projected already.
    func attend(_ query: Value, _ keys: ProjectedKeys, _ visible: ResolvedVisibility, starts: Starts? = nil,
                residual: Value? = nil, weights: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        let q = try pass.linear(query, queryWeight, bias?[queryRows])
        return try attend(q, keys, visible, starts, residual, nil, weights, pass)
    }

    /// Causal self-attention of tokens that follow those of a cache, which has as many for each entry; theirs are appended.
    func attend(_ x: Value, _ cache: KVCache, residual: Value? = nil, _ pass: Pass) throws(Failure) -> Value {
        let all = try pass.linear(x, fused!.all, bias?.all), position = cache.longest
        let own = try keys(of: all, from: options.embedDim, position: position, starts: nil)
        try cache.append(key: own.key, value: own.value)
        return try attend(all, ProjectedKeys(cache), ResolvedVisibility(causalFrom: position), nil, residual, nil, nil, pass)
    }

    /// `projected` holds Q in its first columns.
    private func attend(_ projected: Value, _ keys: ProjectedKeys, _ visible: ResolvedVisibility, _ starts: Starts?,
                        _ residual: Value?, _ out: Tensor?, _ weights: Tensor?, _ pass: Pass) throws(Failure) -> Value {
        var call = visible.options
        call.scale = options.scale
        call.precision = options.precision
        call.alibiSlopes = slopes?.tensor
        if let tape = pass.tape, options.dropout > 0 {
            call.dropoutP = options.dropout
            call.seed = tape.nextAttentionSeed()
        }
        let heads = try pass.target(projected.tensor.dtype, projected.tensor.shape.withLast(options.embedDim), output == nil ? out : nil)
        let place = HeadPlace(whole: projected, column: 0, count: options.heads, dim: headDim)
        try rotation?.turn(place.tensor, from: call.queryOffset ?? 0, starts: starts?.queries)
        let context = heads.heads(from: 0, count: options.heads, dim: headDim)
        let lse = try recordAttention(place, keys, visible, call, starts, heads, pass)
        if let starts {
            try attentionVarlen(query: place.tensor, key: keys.key, value: keys.value, cumulativeQueries: starts.queries,
                                cumulativeKeys: starts.keys, options: call, out: context, lse: lse?.tensor)
        } else {
            let group = keys.key.shape[0] == 0 ? 1 : place.tensor.shape[0] / keys.key.shape[0]
            try scaledDotProductAttention(query: place.tensor.grouped(group), key: keys.key.shared(by: group),
                                          value: keys.value.shared(by: group), options: call, out: context.grouped(group),
                                          lse: lse?.tensor, weights: weights)
        }
        guard let output else { return heads }
        return try pass.linear(heads, output.weight.all, output.bias?.all, residual: residual, dropout: options.outputDropout,
                               out: out)
    }

    /// In training: the backward of one attention, and the memory of the LSE that it needs.
    private func recordAttention(_ query: HeadPlace, _ keys: ProjectedKeys, _ visible: ResolvedVisibility, _ call: AttentionOptions,
                                 _ starts: Starts?, _ heads: Value, _ pass: Pass) throws(Failure) -> Value? {
        guard let tape = pass.tape else { return nil }
        guard let places = keys.places, extraKeys == 0 else {
            throw .argument("add_bias_kv: expected no extra keys in training")
        }
        let q = query.tensor, count = options.heads
        let lse = try pass.value(q.dtype.computing, starts == nil ? [q.shape[0], count, q.shape[2]] : [count, q.shape[0]])
        tape.record { [unowned pass, rotation] () throws(Failure) in
            guard let gradient = heads.takeGradient() else { return }
            let context = heads.heads(from: 0, count: count, dim: query.dim)
            let outGradient = gradient.heads(from: 0, count: count, dim: query.dim)
            let dq = try query.gradient(pass), dk = try places.key.gradient(pass), dv = try places.value.gradient(pass)
            try withExtendedLifetime(visible) { () throws(Failure) in
                if let starts {
                    try attentionVarlenBackward(outGradient: outGradient, query: q, key: keys.key, value: keys.value, out: context,
                                                lse: lse.tensor, cumulativeQueries: starts.queries, cumulativeKeys: starts.keys,
                                                options: call, dq: dq, dk: dk, dv: dv)
                } else {
                    try scaledDotProductAttentionBackward(outGradient: outGradient, query: q, key: keys.key, value: keys.value,
                                                          out: context, lse: lse.tensor, options: call, dq: dq, dk: dk, dv: dv)
                }
            }
            try rotation?.turn(dq, from: call.queryOffset ?? 0, starts: starts?.queries, isBack: true)
            try rotation?.turn(dk, starts: starts?.keys, isBack: true)
        }
        return lse
    }
}

extension Tensor {
    /// Sequences (B * group, H, T, D) as (B, group, H, T, D).
    fileprivate func grouped(_ group: Int) -> Tensor {
        if group == 1 { return self }
        return reshaped([shape[0] / group, group, shape[1], shape[2], shape[3]],
                        strides: [group &* strides[0], strides[0], strides[1], strides[2], strides[3]])
    }

    /// Keys (B, H, S, D) that all sequences of a group look at, (B, 1, H, S, D).
    fileprivate func shared(by group: Int) -> Tensor {
        if group == 1 { return self }
        var result = self
        result.shape.insert(1, at: 1)
        result.strides.insert(0, at: 1)
        return result
    }
}
