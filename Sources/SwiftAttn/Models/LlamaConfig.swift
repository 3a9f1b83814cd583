/// The sizes of a Llama-family decoder, from a caller or from a GGUF file's metadata.

import Glibc

/// RMSNorm, rotary positions, grouped heads, SwiGLU; with or without biases on q, k and v, and with the head tied to the embedding
/// or not, whichever weights there are.
public struct LlamaConfig: Sendable {
    public var vocabulary = 0
    public var width = 0
    public var layers = 0
    public var heads = 0
    public var kvHeads = 0
    public var headDim = 0
    /// Of the feed-forward layers.
    public var hidden = 0
    /// Positions trained on.
    public var context = 0
    /// Elements of a head that are turned.
    public var rotaryDim = 0
    public var normEps = 1e-5
    public var rotaryBase = 10000.0
    public var rotaryScaling = RotaryScaling()
    public var rotaryPairing = RotaryPairing.halves

    public init() {}

    /// Every size within reason, so that products of a few of them fit an Int.
    func checked() throws(Failure) -> LlamaConfig {
        for (name, size, most) in [("vocabulary", vocabulary, 1 << 24), ("width", width, 1 << 20), ("layers", layers, 1 << 12),
                                   ("heads", heads, 1 << 12), ("kv_heads", kvHeads, 1 << 12), ("head_dim", headDim, 1 << 12),
                                   ("hidden", hidden, 1 << 20), ("context", context, 1 << 28)] as [(String, Int, Int)] {
            guard (1...most).contains(size) else { throw .argument("\(name): expected 1 to \(most), got \(size)") }
        }
        guard heads % kvHeads == 0 else { throw .argument("kv_heads: \(kvHeads) does not divide \(heads) heads") }
        guard (0...headDim).contains(rotaryDim), rotaryDim % 2 == 0 else {
            throw .argument("rotary_dim: expected an even number up to \(headDim), got \(rotaryDim)")
        }
        guard normEps >= 0, normEps.isFinite else { throw .argument("norm_eps: expected a finite number of at least 0, got \(normEps)") }
        _ = try rotaryScaling.frequencies(dim: rotaryDim, length: context, base: rotaryBase)
        return self
    }
}

// MARK: GGUF

extension LlamaConfig {
    /// Architectures of GGUF files that this model computes, and how they pair rotary dims.
    private static let pairings: [String: RotaryPairing] = [
        "llama": .neighbours, "qwen2": .halves,
    ]

    public init(_ file: GGUFFile) throws(Failure) {
        guard let name = try file.string("general.architecture") else {
            throw .argument("file: has no general.architecture, expected a model")
        }
        guard let pairing = LlamaConfig.pairings[name] else {
            let known = LlamaConfig.pairings.keys.sorted().joined(separator: ", ")
            throw .argument("file: general.architecture is \(name.prefix(40)), expected one of \(known)")
        }
        func size(_ key: String) throws(Failure) -> Int {
            guard let value = try file.integer("\(name).\(key)") else { throw .argument("file: has no \(name).\(key)") }
            return value
        }
        guard let table = file.tensor("token_embd.weight"), table.shape.count == 2 else {
            throw .argument("token_embd.weight: the file has no such matrix")
        }
        if let experts = try file.integer("\(name).expert_count"), experts > 0 {
            throw .argument("file: \(name).expert_count is \(experts), mixtures of experts are not supported")
        }
        vocabulary = table.shape[0]
        width = try size("embedding_length")
        layers = try size("block_count")
        heads = try size("attention.head_count")
        hidden = try size("feed_forward_length")
        context = try size("context_length")
        kvHeads = try file.integer("\(name).attention.head_count_kv") ?? heads
        headDim = try file.integer("\(name).attention.key_length") ?? (heads > 0 ? width / heads : 0)
        rotaryDim = try file.integer("\(name).rope.dimension_count") ?? headDim
        normEps = try file.number("\(name).attention.layer_norm_rms_epsilon") ?? 1e-5
        rotaryBase = try file.number("\(name).rope.freq_base") ?? 10000
        rotaryPairing = pairing
        rotaryScaling = try LlamaConfig.scaling(file, name, context: context, pairs: rotaryDim / 2)
        self = try checked()
    }

    /// The stretching of rotary positions. Llama 3's comes as divisors of the frequencies, `rope_freqs`.
    private static func scaling(_ file: GGUFFile, _ name: String, context: Int, pairs: Int) throws(Failure) -> RotaryScaling {
        if let divisors = file.tensor("rope_freqs.weight") {
            guard divisors.shape == [pairs] else { throw .shape("rope_freqs.weight: shape is \(divisors.shape), expected (\(pairs),)") }
            let buffer = try FloatBuffer(pairs)
            try file.load(divisors, into: Tensor(data: buffer.pointer, dtype: .float32, shape: [pairs]))
            var scaling = RotaryScaling(.longRope, originalLength: max(context, 2))
            scaling.attentionFactor = 1
            scaling.longFactors = (0..<pairs).map { Double(buffer.pointer[$0]) }
            scaling.shortFactors = scaling.longFactors
            return scaling
        }
        let newer = try file.number("\(name).rope.scaling.factor"), older = try file.number("\(name).rope.scale_linear")
        let factor = newer ?? older
        let kind = try file.string("\(name).rope.scaling.type") ?? (factor == nil ? "none" : "linear")
        let original = try file.integer("\(name).rope.scaling.original_context_length") ?? context
        switch kind {
        case "none": return RotaryScaling()
        case "linear": return RotaryScaling(.linear, factor: factor ?? 1)
        case "yarn":
            var scaling = RotaryScaling(.yarn, factor: factor ?? 1, originalLength: original)
            if let attention = try file.number("\(name).rope.scaling.attn_factor") {
                scaling.attentionFactor = attention * (1 + 0.1 * log(max(factor ?? 1, 1)))
            }
            return scaling
        default: throw .argument("file: \(name).rope.scaling.type is \(kind.prefix(40)), expected none, linear or yarn")
        }
    }
}
