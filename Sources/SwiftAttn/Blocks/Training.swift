/// Modules in training: passes that are recorded, and their gradients.

import CAttnKernels
import Glibc

/// What a module keeps between calls while it trains.
struct TrainingState {
    let pool = Pool()
    var recorded: (pass: Pass, output: Value, inputs: [Value], kept: [Value])?
}

extension Module {
    /// In training a forward keeps what `backward` needs, and dropout is active. One call at a time.
    ///
    /// - Throws: `Failure` for a module of float16 or bfloat16.
    public func setTraining(_ isTraining: Bool) throws(Failure) {
        if isTraining == self.isTraining { return }
        if isTraining, let dtype = parameters.first?.parameter.tensor.dtype, dtype != .float32, dtype != .float64 {
            throw .dtype("module: dtype is \(dtype), expected float32 or float64 in training")
        }
        training = isTraining ? TrainingState() : nil
    }

    public var isTraining: Bool { training != nil }

    /// A pass over this module, recorded in training.
    func begin(_ precision: Precision) -> Pass {
        guard let training else { return Pass(precision: precision) }
        defer { dropout.step += 1 }
        self.training!.recorded = nil
        return Pass(precision: precision, pool: training.pool, tape: Tape(seed: dropout.seed, step: dropout.step))
    }

    /// The end of a pass: what it gave is `output`, and in training goes to `out` now.
    func finish(_ pass: Pass, _ output: Value, inputs: [Value], kept: [Value] = [], out: Tensor) throws(Failure) {
        if pass.tape == nil { return }
        try copyConverting(output.tensor, to: out)
        training!.recorded = (pass, output, inputs, kept)
    }

    /// Adds the gradients of all parameters for the last forward in training, from that of its result.
    ///
    /// - Parameters:
    ///   - outGradient: as the forward's out.
    ///   - inputs: for each input of the forward in their order a tensor of its shape, written, or nil. One that was given as
    ///     several inputs has its whole gradient at the first of them; at the others are zeros.
    /// - Throws: `Failure` for whatever does not fit, or without such a forward; nothing is then written.
    public final func backward(_ outGradient: Tensor, inputs wanted: [Tensor?] = []) throws(Failure) {
        guard let (pass, output, inputs, kept) = training?.recorded else {
            throw .argument("module: expected a forward call in training before, and one for each backward")
        }
        try outGradient.checked("grad_out").expect(dtype: output.tensor.dtype, "grad_out", as: "the module")
        guard outGradient.shape.reduce(1, *) == output.tensor.shape.reduce(1, *),
              outGradient.shape.filter({ $0 != 1 }) == output.tensor.shape.filter({ $0 != 1 }) else {
            throw .shape("grad_out: shape is \(outGradient.shape), expected \(output.tensor.shape)")
        }
        guard wanted.count <= inputs.count else {
            throw .argument("grad_inputs: expected at most \(inputs.count), got \(wanted.count)")
        }
        for (n, tensor) in wanted.enumerated() {
            guard let tensor else { continue }
            try tensor.expect(dtype: output.tensor.dtype, "grad_inputs", as: "the module")
            guard tensor.shape.filter({ $0 != 1 }) == inputs[n].tensor.shape.filter({ $0 != 1 }) else {
                throw .shape("grad_inputs: shape of entry \(n) is \(tensor.shape), expected \(inputs[n].tensor.shape)")
            }
            try Output("grad_inputs", try tensor.checkedOutput("grad_inputs"))?.expectApart(from: outGradient, "grad_out")
            for other in wanted[..<n] { try Output("grad_inputs", tensor)?.expectApart(from: other, "another of them") }
        }
        training!.recorded = nil
        let gradient = try pass.value(output.tensor.dtype, output.tensor.shape)
        try copyConverting(outGradient.shaped(output.tensor.shape), to: gradient.tensor)
        output.gradient = gradient
        try withExtendedLifetime(kept) { () throws(Failure) in try pass.tape!.run() }
        for (n, tensor) in wanted.enumerated() {
            guard let tensor else { continue }
            let isFirst = !inputs[..<n].contains { $0 === inputs[n] }
            let source = isFirst ? inputs[n].gradient : nil
            let zeros = try Parameter(tensor.dtype, source == nil ? [1] : [0])
            try copyConverting(source?.tensor.shaped(tensor.shape) ?? zeros.tensor.repeated(tensor.shape), to: tensor)
        }
    }

    /// The next backward begins with gradients of 0.
    public final func zeroGradients() {
        for (_, parameter) in parameters { parameter.hasGradient = false }
    }
}

extension Tensor {
    /// The same elements without their dims of 1, or with others of these.
    fileprivate func shaped(_ other: Dims) -> Tensor {
        var steps = zip(shape, strides).filter { $0.0 != 1 }.map(\.1)[...]
        var result = Tensor(data: data, dtype: dtype, shape: other, strides: Dims(repeating: 0, count: other.count))
        for i in other.indices where other[i] != 1 { result.strides[i] = steps.removeFirst() }
        return result
    }

    /// The only element in all places.
    fileprivate func repeated(_ other: Dims) -> Tensor {
        Tensor(data: data, dtype: dtype, shape: other, strides: Dims(repeating: 0, count: other.count))
    }
}

// MARK: Gradients of parameters

extension Parameter {
    /// The gradient as a tensor like the parameter; zeros if there is none.
    package func gradient() throws(Failure) -> Tensor {
        let result = try gradientMemory()
        if !hasGradient { memset(result.tensor.data!, 0, try tensor.shape.bytes(of: tensor.dtype)) }
        hasGradient = true
        return result.tensor
    }

    /// The same where all of it is about to be written.
    func overwrittenGradient() throws(Failure) -> Tensor {
        hasGradient = true
        return try gradientMemory().tensor
    }

    private func gradientMemory() throws(Failure) -> Parameter {
        if let gradientStore { return gradientStore }
        let fresh = try Parameter(tensor.dtype, tensor.shape)
        gradientStore = fresh
        return fresh
    }
}
