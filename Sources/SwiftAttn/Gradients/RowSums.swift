/// Sums over the rows of a matrix whose order depends on the number of rows alone.

import CAttnKernels
import Glibc

/// Rows are added up in chunks of 64, eight at a time, and the chunks' sums in a binary tree: neighbours first. Threads share
/// the chunks and the pairs of the tree, and decide nothing else.
struct RowSums {
    static let chunk = 64

    let chunks: Int
    private let columns: Int
    private let dtype: DType
    private let scratch: RowScratch
    private let kinds: Int

    /// Zeroed sums of `kinds` things over `rows` rows of `columns` reals, while `body` runs.
    static func with(rows: Int, columns: Int, kinds: Int = 1, _ dtype: DType,
                     _ body: (RowSums) throws(Failure) -> Void) throws(Failure) {
        let chunks = max((rows + chunk - 1) / chunk, 1)
        try withRowScratch(chunks * kinds, columns, dtype) { (scratch) throws(Failure) in
            let sums = RowSums(chunks: chunks, columns: columns, dtype: dtype, scratch: scratch, kinds: kinds)
            for i in 0..<chunks * kinds { memset(scratch.row(i)!, 0, columns * dtype.computing.size) }
            try body(sums)
        }
    }

    /// Rows of a chunk, of `rows` in all.
    static func rows(_ chunk: Int, of rows: Int) -> Range<Int> {
        min(chunk * RowSums.chunk, rows)..<min((chunk + 1) * RowSums.chunk, rows)
    }

    /// Where the sum of a chunk is taken.
    func place(_ chunk: Int, kind: Int = 0) -> UnsafeMutableRawPointer { scratch.row(chunk * kinds + kind)! }

    /// Adds what `part` holds, unless it is nil, and leaves zeros there.
    func add(_ part: UnsafeMutableRawPointer?, to chunk: Int, kind: Int) {
        guard let part else { return }
        attn_take_sums(dtype.computing.kernel, Int64(columns), part, place(chunk, kind: kind))
    }

    /// The sum over all chunks, which it leaves in the first one.
    func total(kind: Int = 0) -> UnsafeMutableRawPointer {
        var reach = 1
        while reach < chunks {
            let step = reach, pairs = (chunks - step + 2 * step - 1) / (2 * step)
            parallelFor(pairs, grain: max(elementsPerRange / max(columns, 1), 1)) { range in
                for pair in range {
                    attn_take_sums(dtype.computing.kernel, Int64(columns), place(2 * step * pair + step, kind: kind),
                                   place(2 * step * pair, kind: kind))
                }
            }
            reach *= 2
        }
        return place(0, kind: kind)
    }

    /// The sum over all chunks as a (columns,) tensor, rounded to its dtype.
    func store(kind: Int = 0, _ out: Tensor) {
        if out.isEmpty { return }
        attn_store_row(out.dtype.kernel, total(kind: kind), Int64(columns), out.data, Int64(out.strides[0]))
    }
}

extension Tensor {
    /// A gradient that sums up over rows: (columns,) of x's dtype or the type that x is computed in.
    func expectSum(_ name: StaticString, _ columns: Int, of x: Tensor) throws(Failure) {
        try checkedOutput(name).expect(rank: 1...1, name)
        try expect(shape: [columns], name)
        guard dtype == x.dtype || dtype == x.dtype.computing else {
            throw .dtype("\(name): dtype is \(dtype), expected \(x.dtype)\(x.dtype == x.dtype.computing ? "" : " or float32")")
        }
    }
}

/// Outputs of a gradient, each of which may be left out: written to memory of their own.
func expectApart(_ outputs: [(StaticString, Tensor?)], from inputs: [(StaticString, Tensor?)]) throws(Failure) {
    for (i, (name, tensor)) in outputs.enumerated() {
        let written = Output(name, tensor)
        for (other, input) in inputs { try written?.expectApart(from: input, "\(other)") }
        for (other, output) in outputs[..<i] { try written?.expectApart(from: output, "\(other)") }
    }
}
