/// Sampling and the loss on arrays.

/// One token for each row of logits (..., V): shape (...). See `SamplingOptions` for the steps.
///
/// - Parameter previous: (..., n), leading dims broadcast to the rows of logits; -1 is no token.
/// - Throws: `Failure` for an option out of range, and for a row that holds NaN, or -inf alone.
public func sample<T: FloatingElement>(_ logits: NDArray<T>, options: SamplingOptions = SamplingOptions(),
                                       previous: NDArray<Int>? = nil) throws(Failure) -> NDArray<Int> {
    try withTensors(logits, previous) { (t) throws(Failure) in
        var options = options
        if let tokens = t[1] { options.previousTokens = tokens }
        return try NDArray(shape: Dims(logits.shape.dropLast())) { (out) throws(Failure) in
            try sample(t[0]!, options: options, out: out)
        }
    }
}

/// The probabilities that `sample` draws by, of the shape of logits; 0 for tokens that were taken away.
public func samplingDistribution<T: FloatingElement>(_ logits: NDArray<T>, options: SamplingOptions = SamplingOptions(),
                                                     previous: NDArray<Int>? = nil) throws(Failure) -> NDArray<T> {
    try withTensors(logits, previous) { (t) throws(Failure) in
        var options = options
        if let tokens = t[1] { options.previousTokens = tokens }
        return try NDArray(shape: Dims(logits.shape)) { (out) throws(Failure) in
            try samplingDistribution(t[0]!, options: options, out: out)
        }
    }
}

/// Mean cross-entropy of logits (..., V) and targets (...), and the gradient of the logits. Rows whose target is `ignoreIndex`
/// do not count.
///
/// - Parameter labelSmoothing: s of q = (1 - s) · [v = target] + s / V.
/// - Throws: `Failure` for a target out of range or shapes that do not fit.
public func crossEntropy<T: FloatingElement>(_ logits: NDArray<T>, targets: NDArray<Int>, ignoreIndex: Int = -100,
                                             labelSmoothing: Double = 0) throws(Failure) -> (loss: T.Computing, gradient: NDArray<T>) {
    try withTensors(logits, targets) { (t) throws(Failure) in
        var gradient: NDArray<T>?
        let loss = try NDArray<T.Computing>(shape: []) { (loss) throws(Failure) in
            gradient = try NDArray<T>(shape: Dims(logits.shape)) { (gradient) throws(Failure) in
                try crossEntropyBackward(t[0]!, targets: t[1]!, ignoreIndex: ignoreIndex, labelSmoothing: labelSmoothing,
                                         loss: loss, gradLogits: gradient)
            }
        }
        return (loss.elements[0], gradient!)
    }
}
