/// Attention against the float64 reference, on arrays.

import SwiftAttn
import Testing

/// A way of asking for attention.
struct AttentionCase: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let options: AttentionOptions
    let arrays: AttentionArrays

    init(_ name: String, _ arrays: AttentionArrays = AttentionArrays(), _ change: (inout AttentionOptions) -> Void = { _ in }) {
        testDescription = name
        var options = AttentionOptions()
        change(&options)
        self.options = options
        self.arrays = arrays
    }

    /// Of 2 batch entries, 4 query heads, 7 queries and 9 keys.
    static let all = [
        AttentionCase("plain"),
        AttentionCase("causal, upper left") { $0.causal = .upperLeft },
        AttentionCase("causal, lower right") { $0.causal = .lowerRight },
        AttentionCase("scale") { $0.scale = -0.3 },
        AttentionCase("scale 0") { $0.scale = 0 },
        AttentionCase("softcap") { $0.softcap = 1.5 },
        AttentionCase("window") { ($0.windowLeft, $0.windowRight) = (2, 1) },
        AttentionCase("causal window with an offset") { ($0.causal, $0.windowLeft, $0.queryOffset) = (.upperLeft, 3, -2) },
        AttentionCase("offsets", AttentionArrays(queryOffsets: [3, -4])) { $0.causal = .upperLeft },
        AttentionCase("ALiBi", AttentionArrays(alibiSlopes: try! alibiSlopes(heads: 4))),
        AttentionCase("sinks", AttentionArrays(sinks: [0.5, -1, 2, 0])),
        AttentionCase("key lengths", AttentionArrays(keyValueLengths: [0, 6])),
        AttentionCase("lengths, causal", AttentionArrays(queryLengths: [5, 2], keyValueLengths: [3, 9])) {
            $0.causal = .lowerRight
        },
    ]
}

@Suite struct AttentionTests {
    private func arrays<T: TestElement>(_ type: T.Type) -> (NDArray<T>, NDArray<T>, NDArray<T>) {
        var random = Random(1)
        return (random.array([2, 4, 7, 16], of: T.self), random.array([2, 2, 9, 16], of: T.self),
                random.array([2, 2, 9, 5], of: T.self))
    }

    @Test(arguments: AttentionCase.all)
    func agreesWithTheReference(_ given: AttentionCase) throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            let (q, k, v) = arrays(T.self)
            let exact = ReferenceAttention(q, k, v, given.options, given.arrays)
            let out = try scaledDotProductAttention(query: q, key: k, value: v, options: given.options, arrays: given.arrays)
            let state = try scaledDotProductAttentionWithLSE(query: q, key: k, value: v, options: given.options,
                                                             arrays: given.arrays)
            let weighted = try scaledDotProductAttentionWithWeights(query: q, key: k, value: v, options: given.options,
                                                                    arrays: given.arrays)
            #expect(out.shape == [2, 4, 7, 5] && state.lse.shape == [2, 4, 7] && weighted.weights.shape == [2, 4, 7, 9])
            expectClose(out, exact.out, factor: T.outFactor, "out")
            expectClose(state.out, exact.out, factor: T.outFactor, "out")
            expectClose(state.lse, exact.lse, "lse")
            expectClose(weighted.out, exact.out, factor: T.outFactor, "out")
            expectClose(weighted.weights, exact.weights, "weights")
        }
        for type in elementTypes { try check(type) }
    }

    @Test func masks() throws {
        let (q, k, v) = arrays(Float.self)
        var random = Random(2)
        let visible = try NDArray((0..<7 * 9).map { _ in Bool.random(using: &random) }, shape: [7, 9])
        var exact = ReferenceAttention(q, k, v, AttentionOptions(), AttentionArrays()) { _, _, i, j in visible[i, j] ? 0 : nil }
        var arrays = AttentionArrays(mask: visible)
        expectClose(try scaledDotProductAttention(query: q, key: k, value: v, arrays: arrays), exact.out)

        let bias: NDArray<Float> = random.array([2, 1, 1, 9], of: Float.self)
        exact = ReferenceAttention(q, k, v, AttentionOptions(), AttentionArrays()) { b, _, _, j in Double(bias[b, 0, 0, j]) }
        arrays.mask = bias
        expectClose(try scaledDotProductAttention(query: q, key: k, value: v, arrays: arrays), exact.out)
    }

    @Test func otherRanks() throws {
        let (q, k, v) = arrays(Float.self)
        let whole = try scaledDotProductAttention(query: q, key: k, value: v)
        let one = try scaledDotProductAttention(query: NDArray(Array(q.elements[..<112]), shape: [7, 16]),
                                                key: NDArray(Array(k.elements[..<144]), shape: [9, 16]),
                                                value: NDArray(Array(v.elements[..<45]), shape: [9, 5]))
        #expect(one.shape == [7, 5] && one.elements == Array(whole.elements[..<35]))
        let five = try scaledDotProductAttention(query: NDArray(q.elements, shape: [2, 1, 4, 7, 16]),
                                                 key: NDArray(k.elements, shape: [2, 1, 2, 9, 16]),
                                                 value: NDArray(v.elements, shape: [2, 1, 2, 9, 5]))
        #expect(five.shape == [2, 1, 4, 7, 5] && five.elements == whole.elements)
    }

    @Test func packedSequencesAreSingleCalls() throws {
        var random = Random(3)
        let q = random.array([7, 4, 8], of: Float.self)
        let k = random.array([9, 2, 8], of: Float.self), v = random.array([9, 2, 8], of: Float.self)
        var options = AttentionOptions()
        options.causal = .lowerRight
        let starts = [0, 3, 3, 7], keyStarts = [0, 4, 5, 9]
        let packed = try attentionVarlenWithLSE(query: q, key: k, value: v, cumulativeQueries: starts,
                                                cumulativeKeys: keyStarts, options: options)
        #expect(packed.out.shape == [7, 4, 8] && packed.lse.shape == [4, 7])
        for b in 0..<3 where starts[b] < starts[b + 1] {
            func entry(_ x: NDArray<Float>, _ range: Range<Int>) throws -> NDArray<Float> {
                var part = try NDArray<Float>(repeating: 0, shape: [1, x.shape[1], range.count, x.shape[2]])
                for h in 0..<x.shape[1] {
                    for t in range { for d in 0..<x.shape[2] { part[0, h, t - range.lowerBound, d] = x[t, h, d] } }
                }
                return part
            }
            let rows = starts[b]..<starts[b + 1], keys = keyStarts[b]..<keyStarts[b + 1]
            let single = try scaledDotProductAttentionWithLSE(query: entry(q, rows), key: entry(k, keys), value: entry(v, keys),
                                                              options: options)
            let same = try entry(packed.out, rows)
            #expect(same == single.out)
            for h in 0..<4 { for t in rows { #expect(packed.lse[h, t] == single.lse[0, h, t - rows.lowerBound]) } }
        }
        #expect(try attentionVarlen(query: q, key: k, value: v, cumulativeQueries: starts, cumulativeKeys: keyStarts,
                                    options: options) == packed.out)
    }

    @Test func mergedPartsAreTheWhole() throws {
        func check<T: TestElement>(_ type: T.Type) throws {
            let (q, k, v) = arrays(T.self)
            let exact = ReferenceAttention(q, k, v, AttentionOptions(), AttentionArrays())
            var states: [(out: NDArray<T>, lse: NDArray<T.Computing>)] = []
            for keys in [0..<4, 4..<4, 4..<9] {
                func part(_ x: NDArray<T>) throws -> NDArray<T> {
                    let width = x.shape[3]
                    var elements: [T] = []
                    for head in 0..<4 {
                        let first = head * 9 + keys.lowerBound
                        elements += x.elements[first * width..<(first + keys.count) * width]
                    }
                    return try NDArray(elements, shape: [2, 2, keys.count, width])
                }
                states.append(try scaledDotProductAttentionWithLSE(query: q, key: part(k), value: part(v)))
            }
            let merged = try mergeAttentionStates(states)
            let roundings = T.epsilon / T.Computing.epsilon  // of the parts' outs
            expectClose(merged.out, exact.out, factor: 16 + roundings, "out")
            expectClose(merged.lse, exact.lse, "lse")
            #expect(try mergeAttentionStates([states[1]]).lse.elements.allSatisfy { $0.double == -.infinity })
        }
        for type in elementTypes { try check(type) }
    }

    @Test func slopes() throws {
        #expect(try alibiSlopes(heads: 8) == (1...8).map { 1 / Double(1 << $0) })
        #expect(try alibiSlopes(heads: 3) == [1.0 / 16, 1.0 / 256, 1.0 / 4])
        #expect(try alibiSlopes(heads: 0) == [])
    }
}
