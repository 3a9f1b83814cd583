/// One run of blocks from inputs to outputs: the operations they are written in.

/// Owns the memory of what lies between.
final class Pass {
    let pool = Pool()
    let precision: Precision

    init(precision: Precision) { self.precision = precision }

    func value(_ dtype: DType, _ shape: Dims) throws(Failure) -> Value { try Value(dtype, shape, in: pool) }

    /// residual + activation(x · weightᵀ + bias). Written into `out` if given.
    func linear(_ x: Value, _ weight: ParameterRows, _ bias: ParameterRows?, residual: Value? = nil,
                activation: Activation = .none, out: Tensor? = nil) throws(Failure) -> Value {
        let result = try target(x.tensor.dtype, x.tensor.shape.withLast(weight.range.count), out)
        try SwiftAttn.linear(x.tensor, weight: weight.packed(), bias: bias?.tensor, residual: residual?.tensor,
                             activation: activation, precision: precision, out: result.tensor)
        return result
    }

    /// The caller's tensor to write to, or a value of the pass.
    func target(_ dtype: DType, _ shape: Dims, _ out: Tensor?) throws(Failure) -> Value {
        if let out { return Value(lent: out) }
        return try value(dtype, shape)
    }
}
