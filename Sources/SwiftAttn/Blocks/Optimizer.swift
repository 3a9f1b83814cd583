/// Optimisers: from gradients to new parameters.

import CAttnKernels
import Glibc

/// How the learning rate changes over the steps, which count from 1.
public enum Schedule: Int32, Sendable {
    /// rate · min(1, step / warmup)
    case constant = 0
    /// rate · min(step / warmup, sqrt(warmup / step)): the paper's, with its peak at `warmup`.
    case inverseSquareRoot = 1
    /// rate · step / warmup, then from rate down to `finalRate` along half a cosine until `total`.
    case cosine = 2
}

/// Which rule moves the parameters.
public enum OptimizerKind: Int32, Sendable {
    /// m = β₁m + (1-β₁)g, v = β₂v + (1-β₂)g², p = p(1 - rate·decay) - rate · m̂ / (sqrt(v̂) + eps)
    case adamW = 0
    /// g = g + decay·p, m = momentum·m + g (g itself at the first step), p = p - rate · m
    case sgd = 1
}

public struct OptimizerOptions: Sendable {
    public var kind = OptimizerKind.adamW
    public var rate = 1e-3
    public var betas = (0.9, 0.999)
    public var eps = 1e-8
    public var weightDecay = 0.01
    public var momentum = 0.0
    /// Gradients whose norm over all parameters is larger are scaled to it; 0: never.
    public var clipNorm = 0.0
    public var schedule = Schedule.constant
    public var warmup = 0
    public var total = 0
    public var finalRate = 0.0

    public init() {}

    func validated() throws(Failure) -> OptimizerOptions {
        for (name, number) in [("lr", rate), ("weight_decay", weightDecay), ("clip_norm", clipNorm), ("final_lr", finalRate)]
        where !(number >= 0 && number.isFinite) {
            throw .argument("\(name): expected a finite number of at least 0, got \(number)")
        }
        for (name, number) in [("beta1", betas.0), ("beta2", betas.1), ("momentum", momentum)] where !(number >= 0 && number < 1) {
            throw .argument("\(name): expected 0 <= \(name) < 1, got \(number)")
        }
        guard eps > 0, eps.isFinite else { throw .argument("eps: expected a finite number above 0, got \(eps)") }
        guard warmup >= 0 else { throw .argument("warmup: expected at least 0, got \(warmup)") }
        guard schedule != .cosine || total > warmup else {
            throw .argument("total_steps: expected more than warmup's \(warmup), got \(total)")
        }
        return self
    }

    /// The rate of a step, from 1.
    func rate(at step: Int) -> Double {
        let step = Double(step), warm = Double(max(warmup, 1))
        switch schedule {
        case .constant: return rate * min(1, step / warm)
        case .inverseSquareRoot: return rate * min(step / warm, (warm / step).squareRoot())
        case .cosine:
            if step <= Double(warmup) { return rate * step / warm }
            let part = min((step - Double(warmup)) / Double(total - warmup), 1)
            return finalRate + (rate - finalRate) * (1 + cos(.pi * part)) / 2
        }
    }
}

/// Moves a module's parameters along their gradients. Results do not depend on the number of threads.
public final class Optimizer: @unchecked Sendable {
    public let options: OptimizerOptions
    /// Steps made.
    public private(set) var steps = 0
    private let module: Module
    private let slots: [(name: String, parameter: Parameter, first: Parameter, second: Parameter?)]

    public init(_ module: Module, _ given: OptimizerOptions) throws(Failure) {
        options = try given.validated()
        self.module = module
        var slots: [(name: String, parameter: Parameter, first: Parameter, second: Parameter?)] = []
        for (name, parameter) in module.parameters {
            let dtype = parameter.tensor.dtype, shape = parameter.tensor.shape
            guard dtype == .float32 || dtype == .float64 else {
                throw .dtype("module: dtype is \(dtype), expected float32 or float64 in training")
            }
            slots.append((name, parameter, try Parameter(dtype, shape), given.kind == .adamW ? try Parameter(dtype, shape) : nil))
        }
        self.slots = slots
    }

    /// The averages that the rule keeps: "exp_avg.NAME" and "exp_avg_sq.NAME", or "momentum.NAME".
    public var state: [(name: String, tensor: Parameter)] {
        slots.flatMap { slot in
            slot.second.map { [("exp_avg." + slot.name, slot.first), ("exp_avg_sq." + slot.name, $0)] } ?? [("momentum." + slot.name, slot.first)]
        }
    }

    /// Continues a training after so many steps, whose state was loaded.
    public func resume(after steps: Int) throws(Failure) {
        guard (0...1 << 48).contains(steps) else { throw .argument("steps: expected 0 to 2^48, got \(steps)") }
        self.steps = steps
    }

    /// The rate of the next step.
    public var nextRate: Double { options.rate(at: steps + 1) }

    /// One step along the gradients; parameters without one stay. The result is the gradients' norm before clipping. The
    /// gradients are kept: `zeroGradients`.
    public func step() throws(Failure) -> Double {
        let moved = slots.filter(\.parameter.hasGradient)
        var square = 0.0
        for slot in moved { square += try squareSum(slot.parameter.gradient()) }
        let norm = square.squareRoot()
        let scale = options.clipNorm > 0 && norm > options.clipNorm ? options.clipNorm / norm : 1
        steps += 1
        for slot in moved {
            let gradient = try slot.parameter.gradient()
            if slot.parameter.tensor.dtype == .float64 {
                move(Double.self, slot.parameter.tensor, gradient, slot.first.tensor, slot.second?.tensor, scale)
            } else {
                move(Float.self, slot.parameter.tensor, gradient, slot.first.tensor, slot.second?.tensor, scale)
            }
        }
        module.parametersChanged()
        return norm
    }

    /// Pieces of the sum of squares are added in their order, whoever computed them.
    private static let piece = 8192

    private func squareSum(_ x: Tensor) throws(Failure) -> Double {
        let count = x.shape.reduce(1, *), pieces = (count + Self.piece - 1) / Self.piece
        var sums = [Double](repeating: 0, count: pieces)
        sums.withUnsafeMutableBufferPointer { sums in
            nonisolated(unsafe) let sums = sums
            parallelFor(pieces, grain: 2) { range in
                for n in range {
                    let first = n * Self.piece, length = min(Self.piece, count - first)
                    sums[n] = x.dtype == .float64 ? Self.squares(x.data!.assumingMemoryBound(to: Double.self) + first, length)
                        : Self.squares(x.data!.assumingMemoryBound(to: Float.self) + first, length)
                }
            }
        }
        return sums.reduce(0, +)
    }

    private static func squares<R: Real>(_ x: UnsafePointer<R>, _ count: Int) -> Double {
        var lanes = SIMD8<Double>.zero
        var i = 0
        while i + 8 <= count {
            let part = SIMD8<Double>(Double(x[i]), Double(x[i + 1]), Double(x[i + 2]), Double(x[i + 3]), Double(x[i + 4]),
                                     Double(x[i + 5]), Double(x[i + 6]), Double(x[i + 7]))
            lanes += part * part
            i += 8
        }
        var sum = lanes.sum()
        while i < count {
            sum += Double(x[i]) * Double(x[i])
            i += 1
        }
        return sum
    }

    private func move<R: Real>(_ type: R.Type, _ parameter: Tensor, _ gradient: Tensor, _ first: Tensor, _ second: Tensor?,
                               _ scale: Double) {
        let p = parameter.data!.assumingMemoryBound(to: R.self), g = gradient.data!.assumingMemoryBound(to: R.self)
        let m = first.data!.assumingMemoryBound(to: R.self), v = second?.data!.assumingMemoryBound(to: R.self)
        nonisolated(unsafe) let (p0, g0, m0, v0) = (p, g, m, v)
        let rate = options.rate(at: steps), scale = R(scale), decay = options.weightDecay
        let count = parameter.shape.reduce(1, *)
        let isFirst = steps == 1
        let (b1, b2) = options.betas
        let beta1 = R(b1), beta2 = R(b2), rest1 = R(1 - b1), rest2 = R(1 - b2), eps = R(options.eps)
        let correction = R(1 / (1 - pow(b2, Double(steps))).squareRoot()), size = R(rate / (1 - pow(b1, Double(steps))))
        let shrink = R(1 - rate * decay), plainRate = R(rate), plainDecay = R(decay), momentum = R(options.momentum)
        parallelFor(count, grain: max(elementsPerRange / 2, count / 64)) { range in
            if let v = v0 {
                for i in range {
                    let g = g0[i] * scale
                    m0[i] = beta1 * m0[i] + rest1 * g
                    v[i] = beta2 * v[i] + rest2 * (g * g)
                    p0[i] = p0[i] * shrink - size * m0[i] / (v[i].squareRoot() * correction + eps)
                }
            } else {
                for i in range {
                    let g = g0[i] * scale + plainDecay * p0[i]
                    m0[i] = isFirst ? g : momentum * m0[i] + g
                    p0[i] -= plainRate * m0[i]
                }
            }
        }
    }
}
