/// Row functions, activations, embeddings and products against plain float64 loops.

import Foundation
import SwiftAttn
import Testing

@Suite struct KernelTests {
    /// Runs `body` for each element type.
    private func eachType(_ body: (any TestElement.Type) throws -> Void) rethrows {
        for type in elementTypes { try body(type) }
    }

    @Test(arguments: [1, 2, 15, 16, 33, 100, 300, 3000])
    func rows(_ count: Int) throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(count)
            let x = random.array([3, count], of: T.self), weight = random.array([count], of: T.self)
            let bias = random.array([count], of: Float.self)
            let w = weight.elements.map(\.double), b = bias.elements.map(\.double)
            expectClose(try softmax(x), referenceRows(x, count, referenceSoftmax), terms: 0, "softmax")
            expectClose(try rmsNorm(x, weight: weight, eps: 1e-3),
                        referenceRows(x, count) { referenceNorm($0, centred: false, w, nil, 1e-3) }, "rmsNorm")
            expectClose(try layerNorm(x, eps: 0.1),
                        referenceRows(x, count) { referenceNorm($0, centred: true, nil, nil, 0.1) }, "layerNorm")
            expectClose(try layerNorm(x, weight: weight, bias: bias, eps: 0.1),
                        referenceRows(x, count) { referenceNorm($0, centred: true, w, b, 0.1) }, terms: 8, "layerNorm")
        }
        try eachType { try check($0) }
    }

    @Test func varianceIsTakenAfterTheMean() throws {
        let x: NDArray<Float> = [65535, 65537, 65535, 65537]
        #expect(try layerNorm(x, eps: 0) == [-1, 1, -1, 1])
    }

    @Test func otherAxes() throws {
        var random = Random(5)
        let x = random.array([2, 5, 3], of: Float.self)
        let got = try softmax(x, axis: 1)
        for a in 0..<2 {
            for c in 0..<3 {
                let exact = referenceSoftmax((0..<5).map { Double(x[a, $0, c]) })
                for b in 0..<5 { #expect(abs(Double(got[a, b, c]) - exact[b]) < 1e-6) }
            }
        }
        #expect(try softmax(x, axis: -2) == got)
    }

    @Test func edgeRows() throws {
        let none = -Float.infinity
        #expect(try softmax(NDArray([none, none])) == [0, 0])
        #expect(try softmax(NDArray<Float>([], shape: [3, 0])).elements == [])
        #expect(try layerNorm(NDArray<Float>([], shape: [0, 4])).shape == [0, 4])
        #expect(try relu([Float.nan, -1, 2] as NDArray)[0].isNaN)
    }

    @Test func activations() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(7)
            let x = random.array([3, 41], of: T.self, within: 6), up = random.array([3, 41], of: T.self)
            let values = x.elements.map(\.double), gates = up.elements.map(\.double)
            expectClose(try relu(x), values.map { max($0, 0) }, factor: 0, "relu")
            expectClose(try silu(x), values.map(referenceSiLU), "silu")
            for form in [GELU.exact, .tanh] {
                expectClose(try gelu(x, form), values.map { referenceGELU($0, form) }, terms: 4, "gelu")
                expectClose(try geglu(gate: x, up: up, form), zip(values, gates).map { referenceGELU($0, form) * $1 }, terms: 8,
                            "geglu")
            }
            expectClose(try swiglu(gate: x, up: up), zip(values, gates).map { referenceSiLU($0) * $1 }, terms: 4, "swiglu")
        }
        try eachType { try check($0) }
    }

    @Test func embeddings() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(8)
            let table = random.array([5, 3], of: T.self), residual = random.array([2, 3], of: T.self)
            let ids: [Int] = [4, 0, 0, 2]
            let plain = try embedding(NDArray(ids, shape: [2, 2]), table: table)
            #expect(plain.shape == [2, 2, 3])
            for (n, id) in ids.enumerated() {
                for c in 0..<3 { #expect(plain.elements[n * 3 + c].double == table[id, c].double) }
            }
            let added = try embedding(NDArray(ids.map(Int32.init), shape: [2, 2]), table: table, residual: residual)
            let exact = (0..<12).map { plain.elements[$0].double + residual.elements[$0 % 6].double }
            expectClose(added, exact, factor: 1)
        }
        try eachType { try check($0) }
    }

    @Test(arguments: [(0, 4), (3, 0), (5, 1), (40, 7), (300, 64)])
    func positions(_ length: Int, _ dim: Int) throws {
        let got: NDArray<Float> = try sinusoidalPositions(length: length, dim: dim)
        #expect(got.shape == [length, dim])
        for t in 0..<length {
            for c in 0..<dim {
                let angle = Double(t) / pow(10000, Double(c - c % 2) / Double(dim))
                #expect(abs(Double(got[t, c]) - (c % 2 == 0 ? sin(angle) : cos(angle))) < 1e-7)
            }
        }
        #expect(try sinusoidalPositions(length: 2, dim: 2, of: Double.self)[1, 0] == sin(1))
    }

    @Test func rotary() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(10)
            let x = random.array([2, 3, 4, 7], of: T.self)
            let (cosines, sines) = try rotaryTables(dim: 6, length: 9, scaling: RotaryScaling(.linear, factor: 2),
                                                    of: T.Computing.self)
            let positions = try NDArray([0, 8, 3, 3, 1, 2, 5, 7], shape: [2, 4])
            for pairing in [RotaryPairing.halves, .neighbours] {
                var exact = x.elements.map(\.double)
                for row in 0..<24 {
                    let position = Double(positions[row / 12, row % 4])
                    for i in 0..<3 {
                        let a = 7 * row + (pairing == .halves ? i : 2 * i), b = a + (pairing == .halves ? 3 : 1)
                        let angle = position / 2 * pow(10000, -Double(i) / 3)
                        (exact[a], exact[b]) = (exact[a] * cos(angle) - exact[b] * sin(angle),
                                                exact[b] * cos(angle) + exact[a] * sin(angle))
                    }
                }
                expectClose(try rotaryEmbedding(x, cos: cosines, sin: sines, positions: positions, pairing: pairing), exact,
                            terms: 4, "rotary")
            }
        }
        try eachType { try check($0) }
        #expect(throws: Failure.self) { try rotaryTables(dim: 3, length: 2, of: Float.self) }
    }

    @Test func sampling() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            let logits = try NDArray([0, 3, 1, 2, 2, 0, 0, 0].map(T.init), shape: [2, 4])
            var options = SamplingOptions()
            options.temperature = 0
            #expect(try sample(logits, options: options) == [1, 0])
            options.repetitionPenalty = 4
            #expect(try sample(logits, options: options, previous: [1, -1, 0]) == [3, 0])
            options = SamplingOptions()
            options.topK = 2
            options.seed = 5
            let p = try samplingDistribution(logits, options: options)
            expectClose(p, [0, 1 / (1 + exp(-1.0)), 0, 1 / (1 + exp(1.0)), 1 / (1 + 3 * exp(-2.0))]
                        + [Double](repeating: 1 / (exp(2.0) + 3), count: 3), terms: 8)
            #expect(try sample(logits, options: options) == sample(logits, options: options))
        }
        try eachType { try check($0) }
    }

    @Test func loss() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(12)
            let logits = random.array([3, 20], of: T.self, within: 4)
            let (loss, gradient) = try crossEntropy(logits, targets: [4, -100, 19], labelSmoothing: 0.1)
            var total = 0.0, exact = [Double](repeating: 0, count: 60)
            for (row, target) in [(0, 4), (2, 19)] {
                let x = (0..<20).map { logits[row, $0].double }, p = referenceSoftmax(x)
                for v in 0..<20 {
                    let q = (v == target ? 0.9 : 0) + 0.1 / 20
                    total -= q * log(p[v]) / 2
                    exact[20 * row + v] = (p[v] - q) / 2
                }
            }
            #expect(abs(loss.double - total) < 8 * T.Computing.epsilon * total)
            expectClose(gradient, exact, terms: 8)
        }
        try eachType { try check($0) }
    }

    @Test func products() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(9)
            let x = random.array([2, 3, 20], of: T.self), weight = random.array([6, 20], of: T.self)
            let bias = random.array([6], of: T.self), residual = random.array([3, 6], of: T.self)
            var products: [Double] = [], layers: [Double] = []
            for b in 0..<2 {
                for i in 0..<3 {
                    for n in 0..<6 {
                        let sum = (0..<20).reduce(0) { $0 + x[b, i, $1].double * weight[n, $1].double }
                        products.append(sum)
                        layers.append(residual[i, n].double + referenceSiLU(sum + bias[n].double))
                    }
                }
            }
            var columns = try NDArray(repeating: T(0), shape: [20, 6])
            for n in 0..<6 { for k in 0..<20 { columns[k, n] = weight[n, k] } }
            let product = try matmul(x, columns)
            #expect(product.shape == [2, 3, 6])
            expectClose(product, products, terms: 40, "matmul")
            expectClose(try linear(x, weight: weight), products, terms: 40, "linear")
            expectClose(try linear(x, weight: weight, bias: bias, residual: residual, activation: .silu), layers, terms: 40,
                        "linear")
        }
        try eachType { try check($0) }
        #expect(try matmul([1, 2] as NDArray<Float>, [3, 4]) == NDArray([11], shape: []))
    }
}
