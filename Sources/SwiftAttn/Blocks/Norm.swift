/// Normalisation as a block.

/// Which norm a block has.
public enum NormKind: Int32, Sendable {
    case layer = 0
    case rms = 1
}

/// layerNorm or rmsNorm over the last dim. Parameters: weight (N,), at first 1, and of a layer norm with bias, bias (N,).
final class Norm: Module, @unchecked Sendable {
    private let kind: NormKind
    private let eps: Double
    private let weight: Parameter
    private let bias: Parameter?

    init(_ kind: NormKind, width: Int, eps: Double, hasBias: Bool, dtype: DType) throws(Failure) {
        self.kind = kind
        self.eps = eps
        weight = try Parameter(dtype, [width])
        bias = kind == .layer && hasBias ? try Parameter(dtype, [width]) : nil
        let one = weight
        try [1.0].withTensor { (source) throws(Failure) in
            try copyConverting(source.reshaped([width], strides: [0]), to: one.tensor)
        }
        super.init([("weight", weight), ("bias", bias)])
    }

    func callAsFunction(_ x: Value, out: Tensor? = nil, _ pass: Pass) throws(Failure) -> Value {
        let result = try pass.target(x.tensor.dtype, x.tensor.shape, out)
        switch kind {
        case .layer: try layerNorm(x.tensor, weight: weight.tensor, bias: bias?.tensor, eps: eps, out: result.tensor)
        case .rms: try rmsNorm(x.tensor, weight: weight.tensor, eps: eps, out: result.tensor)
        }
        return result
    }
}
