/// A Transformer over tokens: embedding, layers of self-attention, and a head. Encoders as BERT are this, and with causal
/// attention so are language models.

/// What a `TokenModel` computes from its last rows.
public enum TokenHead: Int32, Sendable {
    /// The rows themselves.
    case none = 0
    /// Logits over the vocabulary, from a weight of its own.
    case vocabulary = 1
    /// The same from the embedding's table.
    case tiedVocabulary = 2
    /// Logits over `classes`.
    case classes = 3
}

/// One row for a whole sequence, from the rows of its tokens.
public enum Pooling: Int32, Sendable {
    /// The tokens' rows stay.
    case none = 0
    /// Their mean; of a sequence without tokens 0.
    case mean = 1
    /// The first one.
    case first = 2
}

/// What a `TokenModel` is made of.
public struct TokenModelOptions: Sendable {
    public var layer: LayerOptions
    public var layers: Int
    /// One layer is run `layers` times (ALBERT).
    public var sharesLayers = false
    public var embedding: TokenEmbeddingOptions
    public var finalNorm: NormKind?
    public var head = TokenHead.none
    /// Of the head for classes.
    public var classes = 0
    public var headHasBias = false

    public init(layer: LayerOptions, layers: Int, embedding: TokenEmbeddingOptions) {
        self.layer = layer
        self.layers = layers
        self.embedding = embedding
    }
}

/// What a call of a `TokenModel` takes beside ids.
public struct TokenCall: Sendable {
    /// Of the tokens among themselves; a key padding mask also says what pooling leaves out.
    public var visibility = Visibility()
    /// Offsets (B + 1,) of packed sequences.
    public var starts: Tensor?
    /// As ids: the kind of each token; nil is 0.
    public var types: Tensor?
    public var pooling = Pooling.none
    /// The result's rows are scaled to length 1; a row of 0 stays.
    public var normalizes = false
    /// (L + 1, ..., E), written: the rows before, between and after the L layers.
    public var hidden: Tensor?
    /// (L, B, heads, T, T) of a batch, written: each layer's attention weights.
    public var weights: Tensor?

    public init() {}
}

/// head(pool(norm(layers(embedding(ids))))).
///
/// Parameters: embedding.* (see `TokenEmbedding`), layers.N.*, norm.*, head.* (see `Head`).
public final class TokenModel: Module, @unchecked Sendable {
    public let options: TokenModelOptions
    private let embedding: TokenEmbedding
    private let encoder: Encoder
    private let head: Head?
    /// Scales rows to length 1: RMS norm with this weight.
    private let unit: Parameter

    public init(_ given: TokenModelOptions) throws(Failure) {
        options = given
        let layer = given.layer, width = layer.width, dtype = layer.dtype
        encoder = try Encoder(layer, layers: given.layers, norm: given.finalNorm, areShared: given.sharesLayers)
        embedding = try TokenEmbedding(given.embedding, layer)
        switch given.head {
        case .none: head = nil
        case .vocabulary: head = try Head(layer, embedding, isTied: false, hasBias: given.headHasBias)
        case .tiedVocabulary: head = try Head(layer, embedding, isTied: true, hasBias: given.headHasBias)
        case .classes: head = try Head(layer, classes: given.classes, hasBias: given.headHasBias)
        }
        unit = try Parameter(dtype, [width])
        try [1 / Double(width).squareRoot()].withTensor { [unit] (share) throws(Failure) in
            try copyConverting(share.reshaped([width], strides: [0]), to: unit.tensor)
        }
        super.init([], children: [("embedding", embedding), ("", encoder), ("head", head)])
    }

    /// Width of the result's rows.
    public var outputWidth: Int { head?.outputs ?? options.layer.width }

    /// - Parameters:
    ///   - ids: (B, T), or packed (rows,) with `call.starts`; int32 or int64.
    ///   - out: (B, T, N) or (rows, N), written; (B, N) with pooling. N is `outputWidth`.
    /// - Throws: `Failure` for whatever does not fit; out is then untouched.
    public func forward(_ ids: Tensor, _ call: TokenCall = TokenCall(), out: Tensor) throws(Failure) {
        let pass = begin(options.layer.precision)
        let input = try TokenRows(ids, call, pass)
        try checkOutputs(input, call, out)
        guard pass.tape == nil || call.hidden == nil else { throw .argument("hidden: expected NULL in training") }
        let visible = try input.resolve(options.layer, pass)
        let isLast = call.pooling == .none && head == nil && !call.normalizes
        var x = try embedding(ids, types: call.types, starts: input.offsets, out: call.hidden?.part(0), pass)
        x = try encoder.run(x, visible, starts: input.starts, observed: Observation(hidden: call.hidden, weights: call.weights),
                            out: isLast ? out : nil, pass)
        if isLast {
            if call.hidden != nil && options.finalNorm == nil { try copyConverting(x.tensor, to: out) }
            return try finish(pass, x, inputs: [], kept: input.keptStarts.map { [$0] } ?? [], out: out)
        }
        x = try pool(x, input, call.pooling, out: head == nil && !call.normalizes ? out : nil, pass)
        if let head { x = try head(x, out: out, pass) }
        if call.normalizes { x = try normalized(x, out: out, pass) }
        try finish(pass, x, inputs: [], kept: input.keptStarts.map { [$0] } ?? [], out: out)
    }

    /// Rows of length 1.
    private func normalized(_ x: Value, out: Tensor, _ pass: Pass) throws(Failure) -> Value {
        let result = try pass.target(x.tensor.dtype, x.tensor.shape, out)
        try rmsNorm(x.tensor, weight: unit.tensor, eps: TokenModel.smallest, out: result.tensor)
        pass.tape?.record { [unowned pass, unit] () throws(Failure) in
            guard let gradient = result.takeGradient() else { return }
            let dx = try pass.target(of: x)
            try rmsNormBackward(gradOut: gradient.tensor, x.tensor, weight: unit.tensor, eps: TokenModel.smallest, dx: dx.tensor)
            dx.finish()
        }
        return result
    }

    /// Beside the mean square of a row; it only matters to a row of 0.
    private static let smallest = 1e-30

    private func checkOutputs(_ input: TokenRows, _ call: TokenCall, _ out: Tensor) throws(Failure) {
        guard !call.normalizes || head == nil else {
            throw .argument("normalize: expected 0, the module has a head")
        }
        let dtype = options.layer.dtype, layers = encoder.depth, width = options.layer.width
        var shape: Dims = call.pooling == .none ? input.ids.shape : [input.batch]
        shape.append(outputWidth)
        var hidden: Dims = [layers + 1]
        for size in input.ids.shape { hidden.append(size) }
        hidden.append(width)
        guard call.weights == nil || input.offsets == nil else {
            throw .argument("attentions: expected NULL, packed sequences give none")
        }
        let tokens = input.ids.shape[input.ids.rank - 1]
        let outputs: [(name: StaticString, tensor: Tensor?, shape: Dims)] = [
            ("out", out, shape), ("hidden", call.hidden, hidden),
            ("attentions", call.weights, [layers, input.batch, options.layer.heads, tokens, tokens]),
        ]
        for (n, (name, tensor, shape)) in outputs.enumerated() {
            guard let tensor else { continue }
            try tensor.expect(dtype: dtype, name, as: "the module")
            try tensor.expect(shape: shape, name)
            let written = Output(name, try tensor.checkedOutput(name))
            try written?.expectApart(from: input.ids, "ids")
            try written?.expectApart(from: call.types, "type_ids")
            try written?.expectApart(from: call.starts, "cu_seqlens")
            try written?.expectApart(from: call.visibility.attentionMask, "attn_mask")
            try written?.expectApart(from: call.visibility.keyPaddingMask, "key_padding_mask")
            for (other, otherTensor, _) in outputs[..<n] { try written?.expectApart(from: otherTensor, "\(other)") }
        }
    }

    /// One row for each sequence, (B, E); without pooling the rows as they are.
    private func pool(_ x: Value, _ input: TokenRows, _ pooling: Pooling, out: Tensor?, _ pass: Pass) throws(Failure) -> Value {
        if pooling == .none { return x }
        let width = options.layer.width
        let result = try pass.target(x.tensor.dtype, [input.batch, width], out)
        if pooling == .first {
            try input.firstRows(x, out: result, pass)
        } else {
            try input.means(x, out: result, pass)
        }
        return result
    }
}
