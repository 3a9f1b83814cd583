/// Gradients of attention against differences of the loss, on arrays.

import SwiftAttn
import Testing

@Suite struct AttentionBackwardTests {
    private typealias Inputs = (q: NDArray<Double>, k: NDArray<Double>, v: NDArray<Double>)

    private func inputs(_ random: inout Random) -> Inputs {
        (random.array([2, 4, 7, 6], of: Double.self), random.array([2, 2, 9, 6], of: Double.self),
         random.array([2, 2, 9, 5], of: Double.self))
    }

    @Test(arguments: AttentionCase.all)
    func agreesWithDifferences(_ given: AttentionCase) throws {
        var random = Random(2)
        let (q, k, v) = inputs(&random), weights = random.array([2, 4, 7, 5], of: Double.self)
        func loss(_ q: NDArray<Double>, _ k: NDArray<Double>, _ v: NDArray<Double>) throws -> Double {
            let out = try scaledDotProductAttention(query: q, key: k, value: v, options: given.options, arrays: given.arrays)
            return zip(out.elements, weights.elements).reduce(0) { $0 + $1.0 * $1.1 }
        }
        let state = try scaledDotProductAttentionWithLSE(query: q, key: k, value: v, options: given.options,
                                                         arrays: given.arrays)
        let got = try scaledDotProductAttentionBackward(outGradient: weights, query: q, key: k, value: v, out: state.out,
                                                        lse: state.lse, options: given.options, arrays: given.arrays)
        /* Along one random direction for each input. */
        func check(_ input: NDArray<Double>, _ gradient: NDArray<Double>, _ with: (NDArray<Double>) throws -> Double) throws {
            #expect(gradient.shape == input.shape)
            let way = random.array(input.shape, of: Double.self), step = 1e-5
            func moved(_ by: Double) throws -> NDArray<Double> {
                try NDArray(zip(input.elements, way.elements).map { $0 + by * $1 }, shape: input.shape)
            }
            let difference = try (with(moved(step)) - with(moved(-step))) / (2 * step)
            let expected = zip(gradient.elements, way.elements).reduce(0) { $0 + $1.0 * $1.1 }
            #expect(abs(difference - expected) <= 1e-7 * (1 + abs(expected)))
        }
        try check(q, got.dq) { try loss($0, k, v) }
        try check(k, got.dk) { try loss(q, $0, v) }
        try check(v, got.dv) { try loss(q, k, $0) }
    }

    @Test func failuresNameTheArgument() throws {
        var random = Random(3)
        let (q, k, v) = inputs(&random)
        let state = try scaledDotProductAttentionWithLSE(query: q, key: k, value: v)
        #expect { try scaledDotProductAttentionBackward(outGradient: q, query: q, key: k, value: v, out: state.out, lse: state.lse) }
            throws: { "\($0)".hasPrefix("grad_out: shape is (2, 4, 7, 6)") }
    }
}
