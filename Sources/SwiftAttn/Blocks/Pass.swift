/// One run of blocks from inputs to outputs: the operations they are written in.

/// Owns the memory of what lies between. In training every operation leaves its backward on the tape.
final class Pass {
    let pool: Pool
    let precision: Precision
    let tape: Tape?

    init(precision: Precision, pool: Pool = Pool(), tape: Tape? = nil) {
        self.precision = precision
        self.pool = pool
        self.tape = tape
    }

    func value(_ dtype: DType, _ shape: Dims) throws(Failure) -> Value { try Value(dtype, shape, in: pool) }

    /// The caller's tensor to write to, or a value of the pass; always that in training, where `Module.finish` copies it.
    func target(_ dtype: DType, _ shape: Dims, _ out: Tensor?) throws(Failure) -> Value {
        if let out, tape == nil { return Value(lent: out) }
        return try value(dtype, shape)
    }

    /// A tensor of the caller's as an input; in training a copy, which lasts until the backward.
    func keep(_ tensor: Tensor) throws(Failure) -> Value {
        if tape == nil { return Value(lent: tensor) }
        let copy = try value(tensor.dtype, tensor.shape)
        try copyElements(tensor, to: copy.tensor)
        return copy
    }

    /// residual + dropout(activation(x · weightᵀ + bias)), dropout with probability `dropout` and in training alone. Written
    /// into `out` if given.
    func linear(_ x: Value, _ weight: ParameterRows, _ bias: ParameterRows?, residual: Value? = nil,
                activation: Activation = .none, dropout p: Double = 0, out: Tensor? = nil) throws(Failure) -> Value {
        if let tape { return try recordedLinear(x, weight, bias, residual, activation, p, tape) }
        let result = try target(x.tensor.dtype, x.tensor.shape.withLast(weight.range.count), out)
        try SwiftAttn.linear(x.tensor, weight: weight.packed(), bias: bias?.tensor, residual: residual?.tensor,
                             activation: activation, precision: precision, out: result.tensor)
        return result
    }

    private func recordedLinear(_ x: Value, _ weight: ParameterRows, _ bias: ParameterRows?, _ residual: Value?,
                                _ activation: Activation, _ p: Double, _ tape: Tape) throws(Failure) -> Value {
        let shape = x.tensor.shape.withLast(weight.range.count), isPlain = activation == .none && p == 0
        let z = try value(x.tensor.dtype, shape)
        try SwiftAttn.linear(x.tensor, weight: weight.tensor, bias: bias?.tensor, residual: isPlain ? residual?.tensor : nil,
                             precision: precision, out: z.tensor)
        let result = activation == .none ? z : try value(x.tensor.dtype, shape)
        switch activation {
        case .none: break
        case .relu: try relu(z.tensor, out: result.tensor)
        case .gelu: try gelu(z.tensor, out: result.tensor)
        case .geluTanh: try gelu(z.tensor, .tanh, out: result.tensor)
        case .silu: try silu(z.tensor, out: result.tensor)
        }
        let draw = tape.nextDropout()
        if p > 0 { try SwiftAttn.dropout(result.tensor, p: p, seed: draw.seed, draw: draw.draw, out: result.tensor) }
        if let residual, !isPlain { add(residual.tensor, to: result.tensor) }

        tape.record { [unowned self] () throws(Failure) in
            guard let gradient = result.takeGradient() else { return }
            var inner = gradient
            if p > 0 {
                inner = try value(gradient.tensor.dtype, shape)
                try dropoutBackward(gradOut: gradient.tensor, p: p, seed: draw.seed, draw: draw.draw, dx: inner.tensor)
            }
            let dx = try target(of: x), dweight = try target(of: weight)
            let dbias = try bias.map { (bias) throws(Failure) in try target(of: bias) }
            try linearBackward(gradOut: inner.tensor, x.tensor, weight: weight.tensor, bias: bias?.tensor,
                               preActivation: activation == .none ? nil : z.tensor, activation: activation,
                               precision: precision, dx: dx.tensor, dweight: dweight.tensor, dbias: dbias?.tensor)
            for target in [dx, dweight, dbias] { target?.finish() }
            if let residual { give(gradient, to: residual) }
        }
        return result
    }

    /// dropout(x) in training, else x.
    func dropout(_ x: Value, _ p: Double) throws(Failure) -> Value {
        guard let tape, p > 0 else { return x }
        let draw = tape.nextDropout()
        let result = try value(x.tensor.dtype, x.tensor.shape)
        try SwiftAttn.dropout(x.tensor, p: p, seed: draw.seed, draw: draw.draw, out: result.tensor)
        tape.record { [unowned self] () throws(Failure) in
            guard let gradient = result.takeGradient() else { return }
            try dropoutBackward(gradOut: gradient.tensor, p: p, seed: draw.seed, draw: draw.draw, dx: gradient.tensor)
            give(gradient, to: x)
        }
        return result
    }

    /// activation(gate) * up, dropped out in training.
    func gated(_ activation: FeedForwardActivation, gate: Value, up: Value, dropout p: Double) throws(Failure) -> Value {
        let result = tape == nil ? up : try value(up.tensor.dtype, up.tensor.shape)
        if activation == .swiglu {
            try swiglu(gate: gate.tensor, up: up.tensor, out: result.tensor)
        } else {
            try geglu(gate: gate.tensor, up: up.tensor, out: result.tensor)
        }
        tape?.record { [unowned self] () throws(Failure) in
            guard let gradient = result.takeGradient() else { return }
            let dgate = try target(of: gate), dup = try target(of: up)
            if activation == .swiglu {
                try swigluBackward(gradOut: gradient.tensor, gate: gate.tensor, up: up.tensor, dgate: dgate.tensor, dup: dup.tensor)
            } else {
                try gegluBackward(gradOut: gradient.tensor, gate: gate.tensor, up: up.tensor, dgate: dgate.tensor, dup: dup.tensor)
            }
            dgate.finish()
            dup.finish()
        }
        return try dropout(result, p)
    }
}
