/// Gradients of the Swift face against central differences in float64, and other types against float64.

import Foundation
import SwiftAttn
import Testing

@Suite struct GradientTests {
    /// d(Σ gradOut * function) / dx by differences of the fourth order.
    private func differences(_ x: NDArray<Double>, _ gradOut: NDArray<Double>,
                             _ function: (NDArray<Double>) throws -> NDArray<Double>) rethrows -> [Double] {
        try x.elements.indices.map { i in
            var sum = 0.0
            for (steps, weight) in [(1.0, 8.0), (-1, -8), (2, -1), (-2, 1)] {
                var elements = x.elements
                elements[i] += steps * 1e-3
                let y = try function(NDArray(elements, shape: x.shape))
                sum += weight * zip(y.elements, gradOut.elements).reduce(0) { $0 + $1.0 * $1.1 }
            }
            return sum / 12e-3
        }
    }

    private func expectSame(_ got: NDArray<Double>, _ exact: [Double], sourceLocation: SourceLocation = #_sourceLocation) {
        let size = exact.map(abs).max() ?? 0
        #expect(got.elements.count == exact.count, sourceLocation: sourceLocation)
        for (g, e) in zip(got.elements, exact) { #expect(abs(g - e) <= 1e-7 * size, sourceLocation: sourceLocation) }
    }

    @Test func linearLayer() throws {
        var random = Random(1)
        let x = random.array([2, 3, 4], of: Double.self), weight = random.array([5, 4], of: Double.self)
        let bias = random.array([5], of: Double.self), g = random.array([2, 3, 5], of: Double.self)
        for activation in [Activation.none, .gelu, .geluTanh, .silu] {
            let d = try linearBackward(gradOut: g, x, weight: weight, bias: bias, activation: activation)
            expectSame(d.dx, try differences(x, g) { try linear($0, weight: weight, bias: bias, activation: activation) })
            expectSame(d.dweight, try differences(weight, g) { try linear(x, weight: $0, bias: bias, activation: activation) })
            expectSame(d.dbias, try differences(bias, g) { try linear(x, weight: weight, bias: $0, activation: activation) })
        }
    }

    @Test func rows() throws {
        var random = Random(2)
        let x = random.array([3, 7], of: Double.self), g = random.array([3, 7], of: Double.self)
        let weight = random.array([7], of: Double.self)
        expectSame(try softmaxBackward(gradOut: g, softmax(x)), try differences(x, g) { try softmax($0) })
        let layer = try layerNormBackward(gradOut: g, x, weight: weight)
        expectSame(layer.dx, try differences(x, g) { try layerNorm($0, weight: weight) })
        expectSame(layer.dweight, try differences(weight, g) { try layerNorm(x, weight: $0) })
        expectSame(layer.dbias, try differences(weight, g) { try layerNorm(x, bias: $0) })
        let rms = try rmsNormBackward(gradOut: g, x, weight: weight)
        expectSame(rms.dx, try differences(x, g) { try rmsNorm($0, weight: weight) })
        expectSame(rms.dweight, try differences(weight, g) { try rmsNorm(x, weight: $0) })
    }

    @Test func activations() throws {
        var random = Random(3)
        let x = random.array([3, 5], of: Double.self), up = random.array([3, 5], of: Double.self)
        let g = random.array([3, 5], of: Double.self)
        expectSame(try reluBackward(gradOut: g, x), try differences(x, g) { try relu($0) })
        expectSame(try siluBackward(gradOut: g, x), try differences(x, g) { try silu($0) })
        for form in [GELU.exact, .tanh] {
            expectSame(try geluBackward(gradOut: g, x, form), try differences(x, g) { try gelu($0, form) })
            let gated = try gegluBackward(gradOut: g, gate: x, up: up, form)
            expectSame(gated.dgate, try differences(x, g) { try geglu(gate: $0, up: up, form) })
            expectSame(gated.dup, try differences(up, g) { try geglu(gate: x, up: $0, form) })
        }
        let gated = try swigluBackward(gradOut: g, gate: x, up: up)
        expectSame(gated.dgate, try differences(x, g) { try swiglu(gate: $0, up: up) })
        expectSame(gated.dup, try differences(up, g) { try swiglu(gate: x, up: $0) })
    }

    @Test func positionsAndTables() throws {
        var random = Random(4)
        let table = random.array([5, 3], of: Double.self), g = random.array([2, 3, 3], of: Double.self)
        let ids = try NDArray([2, 0, 2, 4, 2, 1], shape: [2, 3])
        expectSame(try embeddingBackward(gradOut: g, ids: ids, rows: 5), try differences(table, g) { try embedding(ids, table: $0) })
        let (cos, sin) = try rotaryTables(dim: 2, length: 3, of: Double.self)
        let x = random.array([2, 3, 3], of: Double.self)
        for pairing in [RotaryPairing.halves, .neighbours] {
            expectSame(try rotaryEmbeddingBackward(gradOut: g, cos: cos, sin: sin, pairing: pairing),
                       try differences(x, g) { try rotaryEmbedding($0, cos: cos, sin: sin, pairing: pairing) })
        }
        expectSame(try dropout(g, p: 0.4, seed: 2), try differences(x, g) { try dropout($0, p: 0.4, seed: 2) })
    }

    @Test func otherTypes() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            var random = Random(5)
            let x = random.array([70, 33], of: T.self), g = random.array([70, 33], of: T.self)
            let wide = try (NDArray(x.elements.map(\.double), shape: x.shape), NDArray(g.elements.map(\.double), shape: g.shape))
            let got = try layerNormBackward(gradOut: g, x), exact = try layerNormBackward(gradOut: wide.1, wide.0)
            expectClose(got.dx, exact.dx.elements, terms: 8)
            expectClose(got.dweight, exact.dweight.elements, terms: 70)
            expectClose(got.dbias, exact.dbias.elements, terms: 70)
            expectClose(try geluBackward(gradOut: g, x), try geluBackward(gradOut: wide.1, wide.0).elements, terms: 4)
        }
        for type in elementTypes { try check(type) }
    }

    @Test func failures() throws {
        let x = try NDArray<Float>(repeating: 0, shape: [2, 3]), other = try NDArray<Float>(repeating: 0, shape: [3, 2])
        #expect(throws: Failure.self) { try softmaxBackward(gradOut: other, x) }
        #expect(throws: Failure.self) { try layerNormBackward(gradOut: x, x, weight: other) }
        #expect(throws: Failure.self) { try linearBackward(gradOut: x, x, weight: other) }
        #expect(throws: Failure.self) { try embeddingBackward(gradOut: x, ids: [0, 5], rows: 5) }
        #expect(throws: Failure.self) { try dropout(x, p: 1, seed: 0) }
    }
}
