/// First values of parameters, from a seed.

import CAttnKernels
import Glibc

/// How matrices begin.
public enum Initialization: Int32, Sendable {
    /// Uniform in ±sqrt(6 / (inputs + outputs)).
    case xavier = 0
    /// Normal with the given deviation.
    case normal = 1
}

extension Module {
    /// Sets all parameters: matrices by `kind`, tables of embeddings normal with deviation 1/sqrt(width) (`xavier`) or the given
    /// one, biases 0, scales of norms 1. Parameter n draws from Philox with counters (i, n), so one seed gives one module on
    /// every machine. Source: Glorot, Bengio 2010 (xavier).
    public final func initialize(_ kind: Initialization = .xavier, deviation: Double = 0.02, seed: UInt64 = 0) throws(Failure) {
        guard deviation > 0, deviation.isFinite else {
            throw .argument("deviation: expected a finite number above 0, got \(deviation)")
        }
        for (n, (_, parameter)) in parameters.enumerated() {
            let shape = parameter.tensor.shape, inputs = Double(shape[shape.count - 1]), outputs = Double(shape[0])
            let draw: (Double, Double) -> Double
            switch (parameter.role, kind) {
            case (.scale, _): draw = { _, _ in 1 }
            case (.bias, _): draw = { _, _ in 0 }
            case (.matrix, .xavier):
                let bound = (6 / (inputs + outputs)).squareRoot()
                draw = { u, _ in bound * (2 * u - 1) }
            case (.table, .xavier):
                let scale = 1 / inputs.squareRoot()
                draw = { u, v in scale * (-2 * log1p(-u)).squareRoot() * cos(2 * .pi * v) }
            case (.matrix, .normal), (.table, .normal):
                draw = { u, v in deviation * (-2 * log1p(-u)).squareRoot() * cos(2 * .pi * v) }
            }
            parameter.fill(draw, Philox(seed: seed), number: UInt32(n))
            parameter.changed()
        }
    }
}

extension Parameter {
    fileprivate func fill(_ draw: (Double, Double) -> Double, _ generator: Philox, number: UInt32) {
        let count = tensor.shape.reduce(1, *), dtype = tensor.dtype, elementCost = 32  // of a draw, in those of usual elements
        parallelFor(count, grain: max(elementsPerRange / elementCost, count / 256)) { range in
            for i in range {
                let word = generator.words(SIMD4(UInt32(truncatingIfNeeded: i), UInt32(truncatingIfNeeded: i >> 32), number, 0))
                let u = Double((UInt64(word[0]) << 32 | UInt64(word[1])) >> 11) * 0x1p-53
                let v = Double((UInt64(word[2]) << 32 | UInt64(word[3])) >> 11) * 0x1p-53
                store(draw(u, v), at: i, dtype)
            }
        }
    }

    private func store(_ number: Double, at i: Int, _ dtype: DType) {
        var source = number
        let place = Tensor(data: tensor.data! + i * dtype.size, dtype: dtype, shape: [1])
        switch dtype {
        case .float64: place.data!.storeBytes(of: number, as: Double.self)
        case .float32: place.data!.storeBytes(of: Float(number), as: Float.self)
        default:
            withUnsafeMutableBytes(of: &source) { bytes in
                bytes.storeBytes(of: Float(number), as: Float.self)
                attn_store_row(dtype.kernel, bytes.baseAddress, 1, place.data, 1)
            }
        }
    }
}
