/// Views, dims, aliasing and arrays.

import SwiftAttn
import Testing

@Suite struct TensorTests {
    /// `body` with 64 floats, all 1 but the first, which is 2.
    private func withFloats(_ body: (UnsafeMutablePointer<Float>) throws -> Void) rethrows {
        let floats = UnsafeMutablePointer<Float>.allocate(capacity: 64)
        defer { floats.deallocate() }
        floats.initialize(repeating: 1, count: 64)
        floats[0] = 2
        try body(floats)
    }

    private func view(_ floats: UnsafeMutablePointer<Float>, _ shape: Dims, _ strides: Dims) -> Tensor {
        Tensor(data: floats, dtype: .float32, shape: shape, strides: strides)
    }

    @Test func dims() {
        var dims: Dims = [2, 3]
        dims[1] = 5
        #expect(dims == [2, 5] && dims != [2, 5, 1] && dims.count == 2)
        #expect("\(dims)" == "(2, 5)" && "\(Dims([7]))" == "(7,)" && "\(Dims([]))" == "()")
    }

    @Test func contiguousStrides() throws {
        let tensor = Tensor(data: nil, dtype: .int64, shape: [4, 0, 3])
        #expect(tensor.strides == [3, 3, 1] && tensor.isEmpty && tensor.rank == 3)
        try withFloats { floats in
            let buffer = UnsafeMutableBufferPointer(start: floats, count: 6)
            let tensor = try Tensor(buffer, shape: [3, 2])
            #expect(tensor.strides == [2, 1] && tensor.dtype == .float32)
            expectFailure(.invalidShape, "buffer: count is 6, expected 8 for shape (4, 2)") {
                _ = try Tensor(buffer, shape: [4, 2])
            }
        }
    }

    @Test func inPlace() throws {
        try withFloats { floats in
            floats[1] = -3
            try relu(view(floats, [4], [1]), out: view(floats, [4], [1]))
            #expect(floats[0] == 2 && floats[1] == 0)
        }
    }

    @Test func stridesMayBeZeroAndNegative() throws {
        try withFloats { floats in
            for i in 0..<4 { floats[i] = Float(i) }
            try relu(view(floats + 3, [2, 4], [0, -1]), out: view(floats + 8, [2, 4], [1, 2]))
            #expect((0..<8).map { floats[8 + $0] } == [3, 3, 2, 2, 1, 1, 0, 0])
        }
    }

    @Test func interleavedViewsDoNotOverlap() throws {
        try withFloats { floats in
            try relu(view(floats, [4, 3], [6, 1]), out: view(floats + 3, [4, 3], [6, 1]))
            #expect(floats[3] == 2)
        }
    }

    @Test func overlapIsRefused() {
        withFloats { floats in
            expectFailure(.aliasing, "out: overlaps x without being the same view") {
                try relu(view(floats, [4], [1]), out: view(floats + 1, [4], [1]))
            }
            expectFailure(.aliasing, "out: overlaps x without being the same view") {
                try relu(view(floats, [4, 3], [6, 1]), out: view(floats + 2, [4, 3], [6, 1]))
            }
            expectFailure(.aliasing, "out: overlaps weight, expected memory of its own") {
                try rmsNorm(view(floats, [2, 4], [4, 1]), weight: view(floats + 12, [4], [1]),
                            out: view(floats + 8, [2, 4], [4, 1]))
            }
            expectFailure(.aliasing, "out: overlaps lses[1], expected memory of its own") {
                try mergeAttentionStates(outs: [view(floats, [2, 3], [3, 1]), view(floats + 6, [2, 3], [3, 1])],
                                         lses: [view(floats + 12, [2], [1]), view(floats + 22, [2], [1])],
                                         out: view(floats + 20, [2, 3], [3, 1]), lse: view(floats + 30, [2], [1]))
            }
            #expect((1..<64).allSatisfy { floats[$0] == 1 })
        }
    }

    @Test func arraysAreValues() throws {
        let a = try NDArray<Float>([1, 2, 3, 4, 5, 6], shape: [2, 3])
        var b = a
        b[1, 0] = 9
        #expect(a[1, 0] == 4 && b[1, 0] == 9 && a != b)
        try b.withMutableTensor { (out) throws(Failure) in
            try a.withTensor { (x) throws(Failure) in try relu(x, out: out) }
        }
        #expect(a == b)
        let list: NDArray<Int32> = [5, 6]
        #expect(list.shape == [2] && list.rank == 1)
    }

    @Test func bfloat16RoundsToNearestEven() {
        #expect(BFloat16(1 as Float).bitPattern == 0x3f80 && BFloat16(-2.5 as Float).float == -2.5)
        #expect(BFloat16(Float(bitPattern: 0x3f80_8000)).bitPattern == 0x3f80)
        #expect(BFloat16(Float(bitPattern: 0x3f81_8000)).bitPattern == 0x3f82)
        #expect(BFloat16(Float(bitPattern: 0x3f80_8001)).bitPattern == 0x3f81)
        #expect(BFloat16(Float.greatestFiniteMagnitude).float == .infinity)
        #expect(BFloat16(Float(bitPattern: 0x7f80_0001)).float.isNaN)
    }
}
