/// Every operation in plain float64 loops, and how far a result may be from it.

import Foundation
import SwiftAttn
import Testing

/// An element type that tests can make numbers of.
protocol TestElement: FloatingElement where Computing: TestElement {
    init(_ value: Double)
    var double: Double { get }
    /// Distance from 1 to the next number.
    static var epsilon: Double { get }
}

extension Float: TestElement {
    var double: Double { Double(self) }
    static var epsilon: Double { 0x1p-23 }
}
extension Double: TestElement {
    var double: Double { self }
    static var epsilon: Double { 0x1p-52 }
}
extension Float16: TestElement {
    var double: Double { Double(self) }
    static var epsilon: Double { 0x1p-10 }
}
extension BFloat16: TestElement {
    init(_ value: Double) { self.init(Float(value)) }
    var double: Double { Double(float) }
    static var epsilon: Double { 0x1p-7 }
}

let elementTypes: [any TestElement.Type] = [Float.self, Double.self, Float16.self, BFloat16.self]

/// SplitMix64: the same numbers in every run.
struct Random: RandomNumberGenerator {
    var state: UInt64

    init(_ seed: Int) { state = UInt64(seed) }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func array<T: TestElement>(_ shape: [Int], of element: T.Type, within bound: Double = 2) -> NDArray<T> {
        let elements = (0..<shape.reduce(1, *)).map { _ in T(Double.random(in: -bound...bound, using: &self)) }
        return try! NDArray(elements, shape: shape)
    }
}

/// `got` is `exact` but for a rounding to its type and `factor` roundings of the type it is computed in, relative to the
/// size of the row's terms.
func expectClose<T: TestElement>(_ got: NDArray<T>, _ exact: [Double], factor: Double = 16, terms: Double = 1,
                                 _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(got.elements.count == exact.count, sourceLocation: sourceLocation)
    for (i, (g, e)) in zip(got.elements, exact).enumerated() {
        let tiny = T.epsilon > 0x1p-20 ? 0x1p-25 : 0  // half of float16's smallest step
        let bound = T.epsilon / 2 * abs(e) + factor * T.Computing.epsilon * (abs(e) + terms) + tiny
        let isClose = g.double == e || (g.double.isNaN && e.isNaN) || abs(g.double - e) <= bound
        guard isClose else {
            Issue.record("\(what) \(T.dtype) element \(i): \(g.double), expected \(e) within \(bound)",
                         sourceLocation: sourceLocation)
            return
        }
    }
}

// MARK: Attention

extension TestElement {
    /// For `expectClose` on the output of attention: machines with bfloat16 products round the probabilities before they meet
    /// the values, which are at most 2 in size.
    static var outFactor: Double { dtype == .bfloat16 && ["avx512", "amx"].contains(Library.isa) ? 0x1p-8 / Computing.epsilon : 16 }
}

/// (B, Hq, Tq, D), (B, Hkv, Tk, D), (B, Hkv, Tk, Dv) in float64.
struct ReferenceAttention {
    var out: [Double] = [], lse: [Double] = [], weights: [Double] = []

    /// - Parameter bias: of (b, h, i, j); nil is not visible.
    init<T: TestElement>(_ q: NDArray<T>, _ k: NDArray<T>, _ v: NDArray<T>, _ options: AttentionOptions,
                         _ arrays: AttentionArrays, bias: (Int, Int, Int, Int) -> Double? = { _, _, _, _ in 0 }) {
        let (batch, heads, rows, dim) = (q.shape[0], q.shape[1], q.shape[2], q.shape[3])
        let (keys, width, group) = (k.shape[2], v.shape[3], heads / k.shape[1])
        let scale = options.scale ?? 1 / Double(dim).squareRoot()
        for b in 0..<batch {
            let visibleKeys = arrays.keyValueLengths?[b] ?? keys, visibleRows = arrays.queryLengths?[b] ?? rows
            let aligned = options.causal == .lowerRight ? visibleKeys - visibleRows : 0
            let offset = arrays.queryOffsets?[b] ?? options.queryOffset ?? aligned
            for h in 0..<heads {
                for i in 0..<rows {
                    let p = i + offset
                    let scores = (0..<keys).map { j -> Double in
                        guard let bias = bias(b, h, i, j), j < visibleKeys, i < visibleRows, options.causal == .none || j <= p,
                              options.windowLeft.map({ $0 < 0 || j >= p - $0 }) ?? true,
                              options.windowRight.map({ $0 < 0 || j <= p + $0 }) ?? true else { return -.infinity }
                        var s = scale * (0..<dim).reduce(0) { $0 + q[b, h, i, $1].double * k[b, h / group, j, $1].double }
                        if options.softcap > 0 { s = options.softcap * tanh(s / options.softcap) }
                        return s + bias - (arrays.alibiSlopes?[h] ?? 0) * Double(abs(p - j))
                    }
                    let sink = arrays.sinks?[h] ?? -.infinity
                    let m = max(scores.max() ?? -.infinity, sink)
                    let e = scores.map { $0 == -.infinity ? 0 : exp($0 - m) }
                    let l = e.reduce(0, +) + (sink == -.infinity ? 0 : exp(sink - m))
                    lse.append(l == 0 ? -.infinity : m + log(l))
                    weights += e.map { l == 0 ? 0 : $0 / l }
                    for d in 0..<width {
                        let seen = (0..<keys).filter { e[$0] > 0 }
                        out.append(seen.reduce(0) { $0 + e[$1] / l * v[b, h / group, $1, d].double })
                    }
                }
            }
        }
    }
}

// MARK: Rows

/// `function` of each row of `count` neighbours.
func referenceRows<T: TestElement>(_ x: NDArray<T>, _ count: Int, _ function: ([Double]) -> [Double]) -> [Double] {
    let all = x.elements.map(\.double)
    return stride(from: 0, to: all.count, by: max(count, 1)).flatMap { function(Array(all[$0..<$0 + count])) }
}

func referenceSoftmax(_ x: [Double]) -> [Double] {
    let m = x.max() ?? 0
    let e = x.map { m == -.infinity ? 0 : exp($0 - m) }, l = e.reduce(0, +)
    return e.map { l == 0 ? 0 : $0 / l }
}

func referenceNorm(_ x: [Double], centred: Bool, _ weight: [Double]?, _ bias: [Double]?, _ eps: Double) -> [Double] {
    let mean = centred ? x.reduce(0, +) / Double(x.count) : 0
    let variance = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(x.count)
    return x.indices.map { (x[$0] - mean) / (variance + eps).squareRoot() * (weight?[$0] ?? 1) + (bias?[$0] ?? 0) }
}

func referenceGELU(_ x: Double, _ form: GELU = .exact) -> Double {
    switch form {
    case .exact: x / 2 * erfc(-x / 2.0.squareRoot())
    case .tanh: x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    }
}

func referenceSiLU(_ x: Double) -> Double { x / (1 + exp(-x)) }
