/// What a pass in training leaves for its gradients.

import CAttnKernels
import Glibc

/// The operations of a pass, each as what gives its inputs their gradients; run from the last to the first.
final class Tape {
    private let seed: UInt64
    private let step: UInt64
    private var draws: UInt64 = 0
    private var operations: [() throws(Failure) -> Void] = []

    /// `step` numbers the passes of a training: each drops other elements.
    init(seed: UInt64, step: UInt64) {
        self.seed = seed
        self.step = step
    }

    func record(_ operation: @escaping () throws(Failure) -> Void) { operations.append(operation) }

    func run() throws(Failure) {
        while let operation = operations.popLast() { try operation() }
    }

    /// Seed and draw of the next dropout: the step, and the dropout's number within it.
    func nextDropout() -> (seed: UInt64, draw: UInt64) {
        draws += 1
        return (seed, step << 20 | draws)
    }

    /// A seed of its own for the next dropout of attention weights.
    func nextAttentionSeed() -> UInt64 {
        let (seed, draw) = nextDropout()
        let word = Philox(seed: seed).words(SIMD4(UInt32(truncatingIfNeeded: draw), UInt32(truncatingIfNeeded: draw >> 32), 0, 1))
        return UInt64(word[0]) << 32 | UInt64(word[1])
    }
}

/// Where an operation writes a gradient: to its place, or where that has one already beside it, to be added.
struct GradientTarget {
    let tensor: Tensor
    fileprivate let sum: Tensor?
    fileprivate let memory: Value?

    func finish() {
        if let sum { add(tensor, to: sum) }
    }
}

extension Pass {
    /// A target for the gradient of a value.
    func target(of value: Value) throws(Failure) -> GradientTarget {
        let fresh = try self.value(value.tensor.dtype, value.tensor.shape)
        if let sum = value.gradient { return GradientTarget(tensor: fresh.tensor, sum: sum.tensor, memory: fresh) }
        value.gradient = fresh
        return GradientTarget(tensor: fresh.tensor, sum: nil, memory: nil)
    }

    /// A target for the gradient of rows of a parameter, which adds up over passes until `zeroGradients`.
    func target(of rows: ParameterRows) throws(Failure) -> GradientTarget {
        let parameter = rows.parameter
        if !parameter.hasGradient && rows.range.count == parameter.tensor.shape[0] {
            return GradientTarget(tensor: try parameter.overwrittenGradient(), sum: nil, memory: nil)
        }
        let sum = ParameterRows.rows(try parameter.gradient(), rows.range)
        let fresh = try value(sum.dtype, sum.shape)
        return GradientTarget(tensor: fresh.tensor, sum: sum, memory: fresh)
    }

    /// `gradient`, which nobody else uses any more, becomes that of `value` or a part of it.
    func give(_ gradient: Value, to value: Value) {
        if let sum = value.gradient { add(gradient.tensor, to: sum.tensor) } else { value.gradient = gradient }
    }
}

/// sum += x, both contiguous, of one shape, float32 or float64.
func add(_ x: Tensor, to sum: Tensor) {
    let count = x.shape.reduce(1, *), size = x.dtype.size
    if count == 0 { return }
    parallelFor(count, grain: max(elementsPerRange, count / 64)) { range in
        attn_add_rows(x.dtype.kernel, Int64(range.count), x.data! + range.lowerBound * size, 0, 1, nil, 1,
                      sum.data! + range.lowerBound * size)
    }
}
