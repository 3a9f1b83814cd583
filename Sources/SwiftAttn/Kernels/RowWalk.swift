/// Walking tensors of common leading dims row by row, on the threads.

import CAttnKernels

/// The leading dims that several tensors share, neighbours merged where every tensor steps through them evenly.
/// What lies behind the leading dims of a tensor (its row) is the caller's.
struct RowWalk {
    private struct Operand {
        let data: UnsafeMutableRawPointer
        /// In bytes, of the merged dims.
        var strides: Dims
        /// The last of them.
        var step = 0
    }

    private var shape: Dims
    private var operands: [Operand]
    private(set) var count: Int

    /// The first dims of each tensor are `leading`; none of the tensors is empty.
    init(_ leading: Dims, _ tensors: [Tensor]) throws(Failure) {
        var shape = Dims()
        var operands = tensors.map { Operand(data: $0.data!, strides: Dims()) }
        var count = 1
        for dim in leading.indices where leading[dim] != 1 {
            let size = leading[dim]
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            guard !overflow else { throw Failure.outOfMemory }
            count = product
            let last = shape.count - 1
            var isEven = last >= 0
            for i in operands.indices where isEven {
                isEven = operands[i].strides[last] == tensors[i].strides[dim] &* tensors[i].dtype.size &* size
            }
            if isEven { shape[last] *= size } else { shape.append(size) }
            for i in operands.indices {
                let step = tensors[i].strides[dim] &* tensors[i].dtype.size
                if isEven { operands[i].strides[last] = step } else { operands[i].strides.append(step) }
            }
        }
        self.shape = shape
        self.operands = operands
        self.count = count
        setSteps()
    }

    /// Takes the last merged dim out of the walk, as the columns of its rows: their number, and the bytes between
    /// neighbours in each tensor.
    mutating func takeColumns() -> (count: Int, steps: Dims) {
        var steps = Dims()
        for operand in operands { steps.append(operand.step) }
        if shape.isEmpty { return (1, steps) }
        let columns = shape[shape.count - 1]
        shape = shape.droppingLast(1)
        for i in operands.indices { operands[i].strides = operands[i].strides.droppingLast(1) }
        count /= columns
        setSteps()
        return (columns, steps)
    }

    private mutating func setSteps() {
        let last = shape.count - 1
        for i in operands.indices { operands[i].step = last < 0 ? 0 : operands[i].strides[last] }
    }

    /// Calls `body` with the number of each row in `rows` and the place of that row in each tensor.
    @inline(__always)
    func forEach(_ rows: Range<Int>, _ body: (_ row: Int, _ at: UnsafePointer<UnsafeMutableRawPointer>) -> Void) {
        withUnsafeTemporaryAllocation(of: UnsafeMutableRawPointer.self, capacity: operands.count) { at in
            operands.withUnsafeBufferPointer { operands in
                var row = rows.lowerBound
                while row < rows.upperBound {
                    /* rows of one run differ in the last dim alone */
                    let end = min(row + place(row, at), rows.upperBound)
                    while true {
                        body(row, at.baseAddress!)
                        row += 1
                        if row == end { break }
                        for i in operands.indices { at[i] += operands[i].step }
                    }
                }
            }
        }
    }

    /// Calls `body` with the first row, the length and the first row's places of each run: rows that lie `steps` apart.
    @inline(__always)
    func forEachRun(_ rows: Range<Int>, _ body: (_ row: Int, _ count: Int, _ at: UnsafePointer<UnsafeMutableRawPointer>) -> Void) {
        withUnsafeTemporaryAllocation(of: UnsafeMutableRawPointer.self, capacity: operands.count) { at in
            var row = rows.lowerBound
            while row < rows.upperBound {
                let count = min(place(row, at), rows.upperBound - row)
                body(row, count, at.baseAddress!)
                row += count
            }
        }
    }

    /// Bytes between the rows of a run in one of the tensors.
    func step(_ tensor: Int) -> Int { operands[tensor].step }

    /// Where `row` lies in each tensor; the result is how many rows are left in its last dim.
    private func place(_ row: Int, _ at: UnsafeMutableBufferPointer<UnsafeMutableRawPointer>) -> Int {
        for i in operands.indices { at.initializeElement(at: i, to: operands[i].data) }
        if shape.isEmpty { return 1 }
        let run = shape[shape.count - 1]
        var rest = row, dim = shape.count
        while dim > 0 {
            dim -= 1
            let index: Int
            (rest, index) = rest.quotientAndRemainder(dividingBy: shape[dim])
            for i in operands.indices { at[i] += index &* operands[i].strides[dim] }
        }
        return run - row % run
    }
}

/// Below this many elements for each thread, waking it costs more than it saves: a nanosecond each.
let elementsPerRange = 16_384

/// What an element of a row costs in cache, measured on 16 float32 lanes: decides how many threads are worth waking.
enum ElementCost: Int {
    case moved = 90, normalized = 140, gathered = 160, exponential = 220  // picoseconds; gathered: rows from anywhere

    /// Less than two ranges of so much work run on the caller alone: waking a thread costs some microseconds itself.
    private static let range = 5_000_000
    /// A thread that was held up leaves others at most an eighth of its share to wait for.
    private static let rangesPerThread = 8

    /// How many of `count` rows go in one range: as many ranges for each thread, and a multiple of `unit` in each.
    func grain(_ count: Int, columns: Int, _ dtype: DType, unit: Int = 1) -> Int {
        let each = dtype == .float64 && self == .exponential ? 20 * rawValue : rawValue  // of doubles one by one, in C's library
        let ranges = count / max(ElementCost.range / each / columns, 1), threads = Library.threadCount
        if ranges < 2 { return count }
        let even = ranges < threads ? ranges : min(ranges / threads, ElementCost.rangesPerThread) * threads
        return max(count / even / unit, 1) * unit
    }
}

/// Outputs of so many bytes are written past the caches, which cannot hold them for a reader: memory is then not read before
/// it is overwritten, a third of the traffic.
let streamedBytes = 32 << 20

extension Tensor {
    /// Whether this output is to be streamed; an input that is overwritten is in the cache anyway.
    func isStreamed(over input: Tensor? = nil, _ other: Tensor? = nil, from bytes: Int = streamedBytes) -> Bool {
        elementCount * dtype.size >= bytes && input?.data != data && other?.data != data
    }
}

/// `body` over [0, count) in ranges of at least `grain`, on the threads; less than two grains run on the caller alone.
func parallelFor(_ count: Int, grain: Int, _ body: (Range<Int>) -> Void) {
    withoutActuallyEscaping(body) { body in
        var body = body
        withUnsafeMutablePointer(to: &body) { context in
            attn_parallel_for(Int64(count), Int64(grain), { context, first, last in
                context!.assumingMemoryBound(to: ((Range<Int>) -> Void).self).pointee(Int(first)..<Int(last))
            }, context)
        }
    }
}

extension Tensor {
    /// This output takes what the input `other` has: dtype, shape, and a place for each element.
    func expectOutput(like other: Tensor, _ name: StaticString, as otherName: StaticString) throws(Failure) {
        try expect(dtype: other.dtype, name, as: otherName)
        try expect(shape: other.shape, name)
        _ = try checkedOutput(name)
    }

    /// The same elements with the dims in another order.
    func permuting(_ order: Dims) -> Tensor {
        var result = self
        for i in 0..<order.count {
            result.shape[i] = shape[order[i]]
            result.strides[i] = strides[order[i]]
        }
        return result
    }

    /// The dims from the largest step to the smallest.
    var dimsByStep: Dims {
        var order = Dims()
        for dim in 0..<rank {
            var place = order.count
            while place > 0 && strides[order[place - 1]].magnitude < strides[dim].magnitude { place -= 1 }
            order.insert(dim, at: place)
        }
        return order
    }

    /// All dims but `dim`, then that one.
    func dimsWithLast(_ dim: Int) -> Dims {
        var order = Dims()
        for other in 0..<rank where other != dim { order.append(other) }
        order.append(dim)
        return order
    }
}
