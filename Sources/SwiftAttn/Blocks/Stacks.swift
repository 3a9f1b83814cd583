/// Stacks of layers, and the encoder-decoder of both.

/// What calls of layers and stacks take beside their inputs.
public struct LayerCall: Sendable {
    /// Of the queries among themselves.
    public var visibility = Visibility()
    /// Of a decoder's queries on the memory.
    public var memoryVisibility = Visibility()
    /// Of a Transformer's source among itself.
    public var sourceVisibility = Visibility()
    /// Offsets (B + 1,) of packed sequences, (rows, E) without padding; a decoder needs both or none.
    public var starts: Tensor?
    public var memoryStarts: Tensor?

    public init() {}
}

/// Outputs on the way: the rows before, between and after the layers (L + 1, ..., E), and the attention weights of each
/// layer (L, B, heads, T, S).
struct Observation {
    var hidden: Tensor?
    var weights: Tensor?

    func hidden(_ n: Int) -> Tensor? { hidden?.part(n) }
    func weights(_ n: Int) -> Tensor? { weights?.part(n) }
}

extension Tensor {
    /// Entry n of the first dim.
    func part(_ n: Int) -> Tensor {
        Tensor(data: pointer(byOffset: n &* strides[0]), dtype: dtype, shape: Dims(shape.dropFirst()), strides: Dims(strides.dropFirst()))
    }
}

/// Layers of self-attention one after another, then a norm if there is one. A single layer is an encoder as well, whose
/// parameters have no prefix.
///
/// Parameters, with torch.nn's names: layers.N.*, norm.*.
public final class Encoder: Module, @unchecked Sendable {
    let options: LayerOptions
    private let layers: [EncoderLayer]
    private let norm: Norm?

    /// torch.nn.TransformerEncoderLayer.
    public init(layer given: LayerOptions) throws(Failure) {
        options = try given.validated()
        layers = [try EncoderLayer(options)]
        norm = nil
        super.init([], children: [("", layers[0])])
    }

    /// torch.nn.TransformerEncoder. Layers that are shared are one and the same, layers.0.
    public init(_ given: LayerOptions, layers count: Int, norm: NormKind?, areShared: Bool = false) throws(Failure) {
        options = try given.validated()
        var layers: [EncoderLayer] = []
        for n in 0..<(try checkedLayers(count)) { layers.append(areShared && n > 0 ? layers[0] : try EncoderLayer(options)) }
        self.layers = layers
        self.norm = try norm.map { (kind) throws(Failure) in try given.makeNorm(kind) }
        super.init([], children: (areShared ? [layers[0]] : layers).enumerated().map { ("layers.\($0.offset)", $0.element) }
            + [("norm", self.norm)])
    }

    var depth: Int { layers.count }

    /// x (B, T, E), (T, E), or packed (rows, E); out as x, written.
    public func forward(_ x: Tensor, _ call: LayerCall = LayerCall(), out: Tensor) throws(Failure) {
        let pass = begin(options.precision)
        let rows = try InputRows(x, "x", options, starts: call.starts, "cu_seqlens", pass)
        try out.expectOutput(like: x, "out", as: "x")
        try Output("out", out)?.expectApart(from: x, "x", call)
        let visible = try rows.resolve(call.visibility, heads: options.heads, keys: rows, selfNames, pass)
        let result = try run(rows.value, visible, starts: rows.starts(rows), out: rows.shaped(out), pass)
        try finish(pass, result, inputs: [rows.value], kept: rows.kept, out: rows.shaped(out))
    }

    func run(_ x: Value, _ visible: ResolvedVisibility, starts: Starts?, observed: Observation = Observation(), out: Tensor? = nil,
             _ pass: Pass) throws(Failure) -> Value {
        var x = x
        for (n, layer) in layers.enumerated() {
            let isLast = n + 1 == layers.count && norm == nil
            x = try layer(x, visible, starts: starts, weights: observed.weights(n), out: observed.hidden(n + 1) ?? (isLast ? out : nil), pass)
        }
        guard let norm else { return x }
        return try norm(x, out: out, pass)
    }
}

/// Layers of self-attention and cross-attention one after another, then a norm if there is one; as `Encoder`.
public final class Decoder: Module, @unchecked Sendable {
    let options: LayerOptions
    private let layers: [DecoderLayer]
    private let norm: Norm?

    /// torch.nn.TransformerDecoderLayer.
    public init(layer given: LayerOptions) throws(Failure) {
        options = try given.validated()
        layers = [try DecoderLayer(options)]
        norm = nil
        super.init([], children: [("", layers[0])])
    }

    /// torch.nn.TransformerDecoder.
    public init(_ given: LayerOptions, layers count: Int, norm: NormKind?) throws(Failure) {
        options = try given.validated()
        var layers: [DecoderLayer] = []
        for _ in 0..<(try checkedLayers(count)) { layers.append(try DecoderLayer(options)) }
        self.layers = layers
        self.norm = try norm.map { (kind) throws(Failure) in try given.makeNorm(kind) }
        super.init([], children: layers.enumerated().map { ("layers.\($0.offset)", $0.element) } + [("norm", self.norm)])
    }

    /// target (B, T, E), memory (B, S, E), or both without B, or both packed; out as target, written.
    public func forward(_ target: Tensor, memory: Tensor, _ call: LayerCall = LayerCall(), out: Tensor) throws(Failure) {
        let pass = begin(options.precision)
        let rows = try InputRows(target, "tgt", options, starts: call.starts, "cu_seqlens", pass)
        let source = memory.isSameView(as: target) && call.starts == nil && call.memoryStarts == nil
            ? rows : try InputRows(memory, "memory", options, starts: call.memoryStarts, "memory_cu_seqlens", pass)
        try source.expectBatch(of: rows, "memory", as: "tgt")
        try out.expectOutput(like: target, "out", as: "tgt")
        try Output("out", out)?.expectApart(from: target, "tgt", call)
        try Output("out", out)?.expectApart(from: memory, "memory")
        let sight = try sight(rows, source, call, pass)
        let result = try run(rows.value, memory: source.value, sight, out: rows.shaped(out), pass)
        try finish(pass, result, inputs: [rows.value, source.value], kept: rows.kept + source.kept, out: rows.shaped(out))
    }

    fileprivate func sight(_ rows: InputRows, _ source: InputRows, _ call: LayerCall, _ pass: Pass) throws(Failure)
        -> DecoderLayer.Sight {
        DecoderLayer.Sight(
            own: try rows.resolve(call.visibility, heads: options.heads, keys: rows, selfNames, pass),
            memory: try rows.resolve(call.memoryVisibility, heads: options.heads, keys: source, memoryNames, pass),
            starts: rows.starts(rows), memoryStarts: rows.starts(source))
    }

    func run(_ x: Value, memory: Value, _ sight: DecoderLayer.Sight, observed: Observation = Observation(), out: Tensor? = nil,
             _ pass: Pass) throws(Failure) -> Value {
        try run(x, sight, out, pass) { (n, x, out) throws(Failure) in
            let keys = try layers[n].crossAttention.projectKeys(memory, memory, starts: sight.memoryStarts?.keys, pass)
            return try layers[n](x, memory: keys, sight, weights: observed.weights(n), out: out, pass)
        }
    }

    /// Of a memory that was projected, with caches of the tokens before.
    func run(_ x: Value, _ state: DecoderState, _ pass: Pass) throws(Failure) -> Value {
        try run(x, state.sight, nil, pass) { (n, x, out) throws(Failure) in
            try layers[n](x, memory: state.keys[n], state.sight, cache: state.caches[n], out: out, pass)
        }
    }

    private func run(_ x: Value, _ sight: DecoderLayer.Sight, _ out: Tensor?, _ pass: Pass,
                     _ layer: (Int, Value, Tensor?) throws(Failure) -> Value) throws(Failure) -> Value {
        var x = x
        for n in layers.indices { x = try layer(n, x, n + 1 == layers.count && norm == nil ? out : nil) }
        guard let norm else { return x }
        return try norm(x, out: out, pass)
    }

    /// For tokens one after another: memory (B, S, E) is projected once, for `beams` sequences each.
    func start(memory: Value, padding: Tensor?, beams: Int, maxLength: Int, _ pass: Pass) throws(Failure) -> DecoderState {
        let batch = memory.tensor.shape[0], keys = memory.tensor.shape[1], rows = batch * beams
        var repeated: Value?
        if let padding {
            let copy = try pass.value(padding.dtype, [batch, beams, keys])
            try copyElements(padding.reshaped([batch, beams, keys], strides: [padding.strides[0], 0, padding.strides[1]]), to: copy.tensor)
            repeated = copy
        }
        let shape = MaskedShape(batch: rows, heads: options.heads, queries: 1, keys: keys, dtype: options.dtype, isBatched: true)
        let visible = try ResolvedVisibility(Visibility(keyPaddingMask: repeated?.tensor.reshaped([rows, keys], strides: [keys, 1])),
                                             shape, memoryNames, pass)
        var state = DecoderState(sight: DecoderLayer.Sight(own: ResolvedVisibility(causalFrom: 0), memory: visible))
        for layer in layers {
            state.keys.append(try layer.crossAttention.projectKeys(memory, memory, pass))
            let attention = layer.attention
            state.caches.append(try KVCache(batch: rows, kvHeads: attention.keyValueHeads, maxLength: maxLength,
                                            headDim: attention.headDim, dtype: options.dtype))
        }
        return state
    }
}

/// A decoder between two tokens: the projected memory, and what the tokens so far left.
struct DecoderState {
    let sight: DecoderLayer.Sight
    fileprivate(set) var keys: [ProjectedKeys] = []
    fileprivate(set) var caches: [KVCache] = []

    /// Sequence i goes on as sequence indices[i] did.
    func reorder(_ indices: [Int]) throws(Failure) {
        for cache in caches { try cache.reorder(indices) }
    }
}

/// torch.nn.Transformer: an encoder whose result is the memory of a decoder, both with a final norm.
///
/// Parameters, with torch.nn's names: encoder.*, decoder.*.
public final class Transformer: Module, @unchecked Sendable {
    let encoder: Encoder
    let decoder: Decoder

    public init(_ options: LayerOptions, encoderLayers: Int, decoderLayers: Int) throws(Failure) {
        encoder = try Encoder(options, layers: encoderLayers, norm: options.norm)
        decoder = try Decoder(options, layers: decoderLayers, norm: options.norm)
        super.init([], children: [("encoder", encoder), ("decoder", decoder)])
    }

    /// source (B, S, E), target (B, T, E), or both without B, or both packed; out as target, written.
    public func forward(source: Tensor, target: Tensor, _ call: LayerCall = LayerCall(), out: Tensor) throws(Failure) {
        let options = encoder.options
        let pass = begin(options.precision)
        let rows = try InputRows(target, "tgt", options, starts: call.starts, "cu_seqlens", pass)
        let sourceRows = source.isSameView(as: target) && call.starts == nil && call.memoryStarts == nil
            ? rows : try InputRows(source, "src", options, starts: call.memoryStarts, "memory_cu_seqlens", pass)
        try sourceRows.expectBatch(of: rows, "src", as: "tgt")
        try out.expectOutput(like: target, "out", as: "tgt")
        try Output("out", out)?.expectApart(from: target, "tgt", call)
        try Output("out", out)?.expectApart(from: source, "src")
        let visible = try sourceRows.resolve(call.sourceVisibility, heads: options.heads, keys: sourceRows, sourceNames, pass)
        let sight = try decoder.sight(rows, sourceRows, call, pass)
        let memory = try encoder.run(sourceRows.value, visible, starts: sourceRows.starts(sourceRows), pass)
        let result = try decoder.run(rows.value, memory: memory, sight, out: rows.shaped(out), pass)
        try finish(pass, result, inputs: [sourceRows.value, rows.value], kept: rows.kept + sourceRows.kept, out: rows.shaped(out))
    }
}

private func checkedLayers(_ count: Int) throws(Failure) -> Int {
    guard (1...1024).contains(count) else { throw .argument("num_layers: expected 1 to 1024, got \(count)") }
    return count
}
