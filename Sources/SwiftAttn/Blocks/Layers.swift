/// The layers of a Transformer.

/// What layers are made of; the defaults are torch.nn's. E is `width`.
public struct LayerOptions: Sendable {
    public var width: Int
    public var heads: Int
    /// Divides `heads`; nil is as many.
    public var keyValueHeads: Int?
    /// Width of the feed-forward part.
    public var inner = 2048
    public var activation = FeedForwardActivation.relu
    public var norm = NormKind.layer
    public var eps = 1e-5
    /// x + part(norm(x)) instead of norm(x + part(x)).
    public var normFirst = false
    public var hasBias = true
    /// The layer is its self-attention alone: no norms, residuals, feed-forward part and output projection.
    public var isAttentionOnly = false
    /// In training: of attention weights, activations, and the results of attention and feed-forward part.
    public var dropout = 0.0
    public var positions = Positions.none
    public var dtype = DType.float32
    public var precision = Precision.highest

    public init(width: Int, heads: Int) {
        self.width = width
        self.heads = heads
    }

    var attention: MultiheadAttentionOptions {
        var result = MultiheadAttentionOptions(embedDim: width, heads: heads)
        result.keyValueHeads = keyValueHeads
        result.hasBias = hasBias
        result.hasOutputProjection = !isAttentionOnly
        result.dropout = dropout
        result.outputDropout = dropout
        result.positions = positions
        result.dtype = dtype
        result.precision = precision
        return result
    }

    /// Of cross-attention, whose keys stand in another sequence.
    var crossAttention: MultiheadAttentionOptions {
        var result = attention
        result.positions = .none
        return result
    }

    func validated() throws(Failure) -> LayerOptions {
        _ = try attention.validated()
        guard (1...MultiheadAttentionOptions.largest).contains(inner) else {
            throw .argument("dim_feedforward: expected 1 to \(MultiheadAttentionOptions.largest), got \(inner)")
        }
        guard eps >= 0, eps.isFinite else {
            throw .argument("layer_norm_eps: expected a finite number of at least 0, got \(eps)")
        }
        return self
    }

    func makeNorm() throws(Failure) -> Norm { try makeNorm(norm) }

    func makeNorm(_ kind: NormKind) throws(Failure) -> Norm {
        try Norm(kind, width: width, eps: eps, hasBias: hasBias, dtype: dtype)
    }

    func makeFeedForward() throws(Failure) -> FeedForward {
        try FeedForward(width: width, inner: inner, activation: activation, hasBias: hasBias, dropout: dropout, dtype: dtype)
    }
}

/// Self-attention and a feed-forward part, each with a residual and a norm; or attention alone.
///
/// Parameters, with torch.nn's names: self_attn.*, linear1.*, linear2.*, norm1.*, norm2.*.
final class EncoderLayer: Module, @unchecked Sendable {
    private let isNormFirst: Bool
    let attention: MultiheadAttention
    private let rest: (feedForward: FeedForward, norms: (Norm, Norm))?

    init(_ options: LayerOptions) throws(Failure) {
        isNormFirst = options.normFirst
        attention = try MultiheadAttention(options.attention)
        rest = options.isAttentionOnly ? nil : (try options.makeFeedForward(), (try options.makeNorm(), try options.makeNorm()))
        super.init([], children: [("self_attn", attention), ("", rest?.feedForward), ("norm1", rest?.norms.0),
                                  ("norm2", rest?.norms.1)])
    }

    func callAsFunction(_ x: Value, _ visible: ResolvedVisibility, starts: Starts?, weights: Tensor? = nil, out: Tensor? = nil,
                        _ pass: Pass) throws(Failure) -> Value {
        guard let (feedForward, norms) = rest else {
            return try attention.attend(x, x, x, visible, starts: starts, out: out, weights: weights, pass)
        }
        if isNormFirst {
            let normed = try norms.0(x, pass)
            let attended = try attention.attend(normed, normed, normed, visible, starts: starts, residual: x, weights: weights, pass)
            return try feedForward(norms.1(attended, pass), residual: attended, out: out, pass)
        }
        let attended = try attention.attend(x, x, x, visible, starts: starts, residual: x, weights: weights, pass)
        let normed = try norms.0(attended, pass)
        return try norms.1(feedForward(normed, residual: normed, pass), out: out, pass)
    }
}

/// Self-attention, cross-attention on a memory and a feed-forward part, each with a residual and a norm.
///
/// Parameters, with torch.nn's names: self_attn.*, multihead_attn.*, linear1.*, linear2.*, norm1.*, norm2.*, norm3.*.
final class DecoderLayer: Module, @unchecked Sendable {
    private let isNormFirst: Bool
    let attention, crossAttention: MultiheadAttention
    private let feedForward: FeedForward
    private let norms: (Norm, Norm, Norm)

    init(_ options: LayerOptions) throws(Failure) {
        isNormFirst = options.normFirst
        attention = try MultiheadAttention(options.attention)
        crossAttention = try MultiheadAttention(options.crossAttention)
        feedForward = try options.makeFeedForward()
        norms = (try options.makeNorm(), try options.makeNorm(), try options.makeNorm())
        super.init([], children: [("self_attn", attention), ("multihead_attn", crossAttention), ("", feedForward),
                                  ("norm1", norms.0), ("norm2", norms.1), ("norm3", norms.2)])
    }

    /// What a decoder's queries see: of themselves, of the memory; and where packed sequences begin.
    struct Sight {
        var own, memory: ResolvedVisibility
        var starts, memoryStarts: Starts?
    }

    /// `cache` holds keys and values of the tokens before; those of x are appended.
    func callAsFunction(_ x: Value, memory: ProjectedKeys, _ sight: Sight, cache: KVCache? = nil, weights: Tensor? = nil,
                        out: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        func attend(_ y: Value) throws(Failure) -> Value {
            if let cache { return try attention.attend(y, cache, residual: x, pass) }
            return try attention.attend(y, y, y, sight.own, starts: sight.starts, residual: x, pass)
        }
        func look(_ y: Value, _ residual: Value) throws(Failure) -> Value {
            try crossAttention.attend(y, memory, sight.memory, starts: sight.memoryStarts, residual: residual, weights: weights, pass)
        }
        if isNormFirst {
            let attended = try attend(norms.0(x, pass))
            let looked = try look(norms.1(attended, pass), attended)
            return try feedForward(norms.2(looked, pass), residual: looked, out: out, pass)
        }
        let attended = try norms.0(attend(x), pass)
        let looked = try norms.1(look(attended, attended), pass)
        return try norms.2(feedForward(looked, residual: looked, pass), out: out, pass)
    }
}
