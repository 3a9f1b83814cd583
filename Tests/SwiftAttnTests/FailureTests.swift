/// What misuse throws: the status, and a message that names the argument, what was expected and what came.

import SwiftAttn
import Testing

/// `body` throws a `Failure` of this status and message.
func expectFailure(_ status: Failure.Status, _ message: String, sourceLocation: SourceLocation = #_sourceLocation,
                   _ body: () throws -> Void) {
    do {
        try body()
        Issue.record("nothing was thrown, expected: \(message)", sourceLocation: sourceLocation)
    } catch let failure as Failure {
        #expect(failure.status == status && failure.message == message, sourceLocation: sourceLocation)
    } catch {
        Issue.record(error, sourceLocation: sourceLocation)
    }
}

@Suite struct FailureTests {
    private let x = try! NDArray<Float>(repeating: 1, shape: [3, 4])

    private func zeros(_ shape: Int...) -> NDArray<Float> { try! NDArray(repeating: 0, shape: shape) }

    @Test func arrays() {
        expectFailure(.invalidShape, "elements: count is 3, expected 4 for shape (2, 2)") {
            _ = try NDArray<Float>([1, 2, 3], shape: [2, 2])
        }
        expectFailure(.invalidShape, "shape: dim 1 is -1, expected at least 0") { _ = try NDArray<Float>([], shape: [2, -1]) }
        expectFailure(.invalidShape, "shape: rank is 9, expected at most 8") {
            _ = try NDArray<Float>([1], shape: [Int](repeating: 1, count: 9))
        }
        expectFailure(.outOfMemory, "out of memory: the scratch buffers could not be allocated") {
            _ = try NDArray<Float>([], shape: [1 << 40, 1 << 40])
        }
    }

    @Test func attention() {
        let q = zeros(2, 4, 5, 8), k = zeros(2, 2, 7, 8)
        func fails(_ status: Failure.Status, _ message: String, query: NDArray<Float>? = nil, key: NDArray<Float>? = nil,
                   value: NDArray<Float>? = nil, arrays: AttentionArrays = AttentionArrays(),
                   sourceLocation: SourceLocation = #_sourceLocation, _ change: (inout AttentionOptions) -> Void = { _ in }) {
            var options = AttentionOptions()
            change(&options)
            expectFailure(status, message, sourceLocation: sourceLocation) {
                _ = try scaledDotProductAttention(query: query ?? q, key: key ?? k, value: value ?? k, options: options,
                                                  arrays: arrays)
            }
        }
        fails(.invalidShape, "key: head_dim is 9, query has 8", key: zeros(2, 2, 7, 9))
        fails(.invalidShape, "key: heads are 3, expected a divisor of the query's 4", key: zeros(2, 3, 7, 8),
              value: zeros(2, 3, 7, 8))
        fails(.invalidShape, "value: length is 6, key has 7", value: zeros(2, 2, 6, 8))
        fails(.invalidShape, "query: rank is 1, expected 2 to 8", query: zeros(8))
        fails(.invalidShape, "q_lengths: shape is (1,), expected (2,)", arrays: AttentionArrays(queryLengths: [1]))
        fails(.invalidShape, "sinks: shape is (3,), expected (4,)", arrays: AttentionArrays(sinks: [0, 0, 0]))
        fails(.invalidArgument, "kv_lengths: entry 1 is 8, expected 0 to 7", arrays: AttentionArrays(keyValueLengths: [7, 8]))
        fails(.invalidArgument, "dropout_p: expected 0 <= dropout_p < 1, got 1.0") { $0.dropoutP = 1 }
        fails(.invalidArgument, "scale: expected a finite number, got inf") { $0.scale = .infinity }
        fails(.invalidDType, "attn_mask: dtype is int64, expected bool, float32 or the query's",
              arrays: AttentionArrays(mask: [1, 2, 3]))
        expectFailure(.invalidArgument, "cu_seqlens_q: the last entry is 4, expected the total of 5") {
            _ = try attentionVarlen(query: zeros(5, 4, 8), key: zeros(7, 2, 8), value: zeros(7, 2, 8),
                                    cumulativeQueries: [0, 4], cumulativeKeys: [0, 7])
        }
    }

    @Test func states() {
        expectFailure(.invalidArgument, "count: expected at least 1, got 0") {
            _ = try mergeAttentionStates([] as [(out: NDArray<Float>, lse: NDArray<Float>)])
        }
        expectFailure(.invalidShape, "outs[1]: shape is (2, 4), expected (3, 4)") {
            _ = try mergeAttentionStates([(x, zeros(3)), (zeros(2, 4), zeros(2))])
        }
        expectFailure(.invalidShape, "lses[0]: shape is (4,), expected (3,)") {
            _ = try mergeAttentionStates([(x, zeros(4))])
        }
    }

    @Test func rows() {
        expectFailure(.invalidArgument, "axis: expected -2 to 1, got 2") { _ = try softmax(x, axis: 2) }
        expectFailure(.invalidShape, "x: rank is 0, expected 1 to 8") { _ = try softmax(NDArray<Float>([1], shape: [])) }
        expectFailure(.invalidArgument, "eps: expected a finite number of at least 0, got -1.0") {
            _ = try layerNorm(x, eps: -1)
        }
        expectFailure(.invalidShape, "weight: shape is (3,), expected (4,)") { _ = try rmsNorm(x, weight: zeros(3)) }
        expectFailure(.invalidShape, "bias: rank is 2, expected 1") { _ = try layerNorm(x, bias: zeros(4, 1)) }
        expectFailure(.invalidDType, "weight: dtype is float64, expected float32") {
            _ = try rmsNorm(x, weight: [1.0, 1, 1, 1])
        }
        expectFailure(.invalidShape, "up: shape is (4, 3), expected (3, 4)") { _ = try swiglu(gate: x, up: zeros(4, 3)) }
    }

    @Test func embeddings() {
        expectFailure(.invalidArgument, "ids: entry 1 is 3, expected 0 <= id < 3") {
            _ = try embedding([0, 3] as NDArray<Int>, table: x)
        }
        expectFailure(.invalidArgument, "ids: entry 0 is -1, expected 0 <= id < 3") {
            _ = try embedding([-1] as NDArray<Int32>, table: x)
        }
        expectFailure(.invalidShape, "table: rank is 1, expected 2") {
            _ = try embedding([0] as NDArray<Int>, table: zeros(4))
        }
        expectFailure(.invalidShape, "residual: shape (2, 4) does not broadcast to leading dims (1, 4)") {
            _ = try embedding([0] as NDArray<Int>, table: x, residual: zeros(2, 4))
        }
        expectFailure(.invalidShape, "shape: dim 0 is -1, expected at least 0") { _ = try alibiSlopes(heads: -1) }
        expectFailure(.invalidShape, "shape: dim 1 is -2, expected at least 0") {
            _ = try sinusoidalPositions(length: 1, dim: -2)
        }
    }

    @Test func products() {
        expectFailure(.invalidShape, "b: shape is (3, 4), expected 4 in the dim that meets a's last") { _ = try matmul(x, x) }
        expectFailure(.invalidShape, "weight: shape is (4, 3), x has 4 features") { _ = try linear(x, weight: zeros(4, 3)) }
        expectFailure(.invalidShape, "bias: shape is (4,), expected (3,)") { _ = try linear(x, weight: x, bias: zeros(4)) }
    }

    @Test func threads() {
        expectFailure(.invalidArgument, "threads: expected 0 to 1024, got 1025") { try Library.setThreadCount(1025) }
    }
}
