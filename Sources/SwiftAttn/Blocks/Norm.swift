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
        weight = try Parameter(dtype, [width], .scale)
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
        pass.tape?.record { [unowned pass, kind, eps, weight, bias] () throws(Failure) in
            guard let gradient = result.takeGradient() else { return }
            let dx = try pass.target(of: x), dweight = try pass.target(of: weight.all)
            let dbias = try bias.map { (bias) throws(Failure) in try pass.target(of: bias.all) }
            switch kind {
            case .layer:
                try layerNormBackward(gradOut: gradient.tensor, x.tensor, weight: weight.tensor, eps: eps, dx: dx.tensor,
                                      dweight: dweight.tensor, dbias: dbias?.tensor)
            case .rms:
                try rmsNormBackward(gradOut: gradient.tensor, x.tensor, weight: weight.tensor, eps: eps, dx: dx.tensor,
                                    dweight: dweight.tensor)
            }
            for target in [dx, dweight, dbias] { target?.finish() }
        }
        return result
    }
}
