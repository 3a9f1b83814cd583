/// The Transformer of the paper over tokens: what it read becomes what it writes.

/// What an `EncoderDecoder` is made of.
public struct EncoderDecoderOptions: Sendable {
    public var layer: LayerOptions
    public var encoderLayers: Int
    public var decoderLayers: Int
    public var source: TokenEmbeddingOptions
    public var target: TokenEmbeddingOptions
    /// Source and target share their embedding; `target` is then not used.
    public var sharesEmbedding = false
    /// The head's weight is the target embedding's table.
    public var tiesHead = false
    public var headHasBias = false

    public init(layer: LayerOptions, encoderLayers: Int, decoderLayers: Int, source: TokenEmbeddingOptions,
                target: TokenEmbeddingOptions) {
        self.layer = layer
        self.encoderLayers = encoderLayers
        self.decoderLayers = decoderLayers
        self.source = source
        self.target = target
    }
}

/// head(decoder(embedding(target), encoder(embedding(source)))).
///
/// Parameters: src_embedding.*, tgt_embedding.* unless shared (see `TokenEmbedding`), encoder.*, decoder.* as in torch.nn.Transformer,
/// head.* (see `Head`).
public final class EncoderDecoder: Module, @unchecked Sendable {
    let options: EncoderDecoderOptions
    let sourceEmbedding, targetEmbedding: TokenEmbedding
    let encoder: Encoder
    let decoder: Decoder
    let head: Head

    public init(_ given: EncoderDecoderOptions) throws(Failure) {
        options = given
        let layer = given.layer
        encoder = try Encoder(layer, layers: given.encoderLayers, norm: layer.norm)
        decoder = try Decoder(layer, layers: given.decoderLayers, norm: layer.norm)
        sourceEmbedding = try TokenEmbedding(given.source, layer)
        targetEmbedding = given.sharesEmbedding ? sourceEmbedding : try TokenEmbedding(given.target, layer)
        head = try Head(layer, targetEmbedding, isTied: given.tiesHead, hasBias: given.headHasBias)
        super.init([], children: [("src_embedding", sourceEmbedding), ("tgt_embedding", given.sharesEmbedding ? nil : targetEmbedding),
                                  ("encoder", encoder), ("decoder", decoder), ("head", head)])
    }

    /// Logits (B, T, V), written, for source (B, S) and target (B, T) ids. `weights` (L, B, heads, T, S), written: of each
    /// decoder layer's cross-attention.
    ///
    /// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
    public func forward(source: Tensor, target: Tensor, _ call: LayerCall = LayerCall(), out: Tensor,
                        weights: Tensor? = nil) throws(Failure) {
        guard call.starts == nil, call.memoryStarts == nil else {
            throw .argument("cu_seqlens: expected NULL, an encoder-decoder takes padded batches")
        }
        for (name, ids) in [("src", source), ("tgt", target)] as [(StaticString, Tensor)] {
            try ids.checked(name).expect(rank: 2...2, name)
            guard ids.shape[0] == source.shape[0] else {
                throw .shape("\(name): batch is \(ids.shape[0]), src has \(source.shape[0])")
            }
        }
        let layer = options.layer
        let outputs: [(name: StaticString, tensor: Tensor?, shape: Dims)] = [
            ("out", out, [target.shape[0], target.shape[1], head.outputs]),
            ("attentions", weights, [options.decoderLayers, target.shape[0], layer.heads, target.shape[1], source.shape[1]]),
        ]
        for (name, tensor, shape) in outputs {
            guard let tensor else { continue }
            try tensor.expect(dtype: layer.dtype, name, as: "the module")
            try tensor.expect(shape: shape, name)
            let written = Output(name, try tensor.checkedOutput(name))
            try written?.expectApart(from: source, "src", call)
            try written?.expectApart(from: target, "tgt")
        }
        try Output("out", out)?.expectApart(from: weights, "attentions")
        let pass = begin(layer.precision)
        let memory = try encode(source, call.sourceVisibility, pass)
        let x = try targetEmbedding(target, types: nil, pass)
        func resolve(_ visibility: Visibility, keys: Int, _ names: MaskNames) throws(Failure) -> ResolvedVisibility {
            let shape = MaskedShape(batch: target.shape[0], heads: layer.heads, queries: target.shape[1], keys: keys,
                                    dtype: layer.dtype, isBatched: true)
            return try ResolvedVisibility(visibility, shape, names, pass)
        }
        let sight = DecoderLayer.Sight(own: try resolve(call.visibility, keys: target.shape[1], selfNames),
                                       memory: try resolve(call.memoryVisibility, keys: source.shape[1], memoryNames))
        let rows = try decoder.run(x, memory: memory, sight, observed: Observation(weights: weights), pass)
        try finish(pass, head(rows, out: out, pass), inputs: [], out: out)
    }

    /// The memory (B, S, E).
    func encode(_ source: Tensor, _ visibility: Visibility, _ pass: Pass) throws(Failure) -> Value {
        let shape = MaskedShape(batch: source.shape[0], heads: options.layer.heads, queries: source.shape[1], keys: source.shape[1],
                                dtype: options.layer.dtype, isBatched: true)
        let visible = try ResolvedVisibility(visibility, shape, sourceNames, pass)
        return try encoder.run(sourceEmbedding(source, types: nil, pass), visible, starts: nil, pass)
    }
}
