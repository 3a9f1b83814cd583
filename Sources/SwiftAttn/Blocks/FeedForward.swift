/// The feed-forward part of a layer.

/// The activation between the two products of a feed-forward part; the gated ones have a third.
public enum FeedForwardActivation: Int32, Sendable {
    case relu = 0
    case gelu = 1
    case geluTanh = 2
    case silu = 3
    case swiglu = 4
    case geglu = 5

    /// The one that a product takes in; nil for the gated ones.
    var plain: Activation? {
        switch self {
        case .relu: .relu
        case .gelu: .gelu
        case .geluTanh: .geluTanh
        case .silu: .silu
        case .swiglu, .geglu: nil
        }
    }
}

/// linear2(activation(linear1 x)), or gated linear2(activation(linear_gate x) * linear1 x) with silu (swiglu) or gelu (geglu).
///
/// Parameters: linear1.weight (F, E), linear1.bias (F,), with a gate linear_gate.weight and .bias likewise, linear2.weight
/// (E, F), linear2.bias (E,).
final class FeedForward: Module, @unchecked Sendable {
    private let activation: FeedForwardActivation
    /// Of dropout, behind the activation and behind the last product.
    private let p: Double
    private let up, down: Linear
    private let gate: Linear?

    init(width: Int, inner: Int, activation: FeedForwardActivation, hasBias: Bool, dropout p: Double = 0,
         dtype: DType) throws(Failure) {
        self.activation = activation
        self.p = p
        up = try Linear(width, inner, hasBias: hasBias, dtype: dtype)
        gate = activation.plain == nil ? try Linear(width, inner, hasBias: hasBias, dtype: dtype) : nil
        down = try Linear(inner, width, hasBias: hasBias, dtype: dtype)
        super.init([], children: [("linear1", up), ("linear_gate", gate), ("linear2", down)])
    }

    /// residual + the block's output.
    func callAsFunction(_ x: Value, residual: Value, out: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        guard let gate else {
            let wide = try up(x, activation: activation.plain!, dropout: p, pass)
            return try down(wide, residual: residual, dropout: p, out: out, pass)
        }
        let wide = try up(x, pass), opening = try gate(x, pass)
        let inside = try pass.gated(activation, gate: opening, up: wide, dropout: p)
        return try down(inside, residual: residual, dropout: p, out: out, pass)
    }
}

/// x · weightᵀ + bias. Parameters: weight (N, K), bias (N,).
final class Linear: Module, @unchecked Sendable {
    let weight: Parameter
    let bias: Parameter?

    init(_ inputs: Int, _ outputs: Int, hasBias: Bool, dtype: DType) throws(Failure) {
        weight = try Parameter(dtype, [outputs, inputs])
        bias = hasBias ? try Parameter(dtype, [outputs]) : nil
        super.init([("weight", weight), ("bias", bias)])
    }

    func callAsFunction(_ x: Value, residual: Value? = nil, activation: Activation = .none, dropout: Double = 0,
                        out: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        try pass.linear(x, weight.all, bias?.all, residual: residual, activation: activation, dropout: dropout, out: out)
    }
}
