/// From the last rows of a model to logits.

/// projection(x) · weightᵀ + bias.
///
/// Parameters: weight (V, W) for the vocabulary, unless it is the embedding's table, or (classes, E); bias; projection.weight
/// (W, E) where the vocabulary's rows are W instead of E wide.
final class Head: Module, @unchecked Sendable {
    private let projection: Linear?
    private let weight: Parameter
    private let bias: Parameter?

    var outputs: Int { weight.tensor.shape[0] }

    /// Logits over the vocabulary of `embedding`; tied, its table is the weight.
    init(_ layer: LayerOptions, _ embedding: TokenEmbedding, isTied: Bool, hasBias: Bool) throws(Failure) {
        let table = embedding.table, width = table.tensor.shape[1]
        weight = isTied ? table : try Parameter(layer.dtype, table.tensor.shape)
        bias = hasBias ? try Parameter(layer.dtype, [table.tensor.shape[0]]) : nil
        projection = width == layer.width ? nil : try Linear(layer.width, width, hasBias: false, dtype: layer.dtype)
        super.init([("weight", isTied ? nil : weight), ("bias", bias)], children: [("projection", projection)])
    }

    /// Logits over classes.
    init(_ layer: LayerOptions, classes: Int, hasBias: Bool) throws(Failure) {
        guard (1...MultiheadAttentionOptions.largest).contains(classes) else {
            throw .argument("num_classes: expected 1 to \(MultiheadAttentionOptions.largest), got \(classes)")
        }
        weight = try Parameter(layer.dtype, [classes, layer.width])
        bias = hasBias ? try Parameter(layer.dtype, [classes]) : nil
        projection = nil
        super.init([("weight", weight), ("bias", bias)])
    }

    func callAsFunction(_ x: Value, out: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        let inner = try projection.map { (projection) throws(Failure) in try projection(x, pass) } ?? x
        return try pass.linear(inner, weight.all, bias?.all, out: out)
    }
}
