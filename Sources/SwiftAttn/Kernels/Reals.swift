/// Elements of any dtype as the type they are computed in.

import CAttnKernels
import Glibc

/// A type that kernels compute in: Float, or Double for float64. (SIMD vectors ask for Codable scalars.)
protocol Real: BinaryFloatingPoint, SIMDScalar, Codable {
    /// Whether one of the 16 numbers there is at least `bound`; of each type's own, as the compiler makes generic vectors
    /// loops.
    static func isAny(of numbers: UnsafePointer<Self>, atLeast bound: Self) -> Bool
}

extension Float: Real {
    @inline(__always)
    static func isAny(of numbers: UnsafePointer<Float>, atLeast bound: Float) -> Bool {
        let some = UnsafeRawPointer(numbers).loadUnaligned(as: SIMD16<Float>.self)
        return any(some .>= SIMD16<Float>(repeating: bound))
    }
}

extension Double: Real {
    @inline(__always)
    static func isAny(of numbers: UnsafePointer<Double>, atLeast bound: Double) -> Bool {
        let some = UnsafeRawPointer(numbers).loadUnaligned(as: SIMD16<Double>.self)
        return any(some .>= SIMD16<Double>(repeating: bound))
    }
}

/// How the elements of a row lie in memory.
struct RowLayout<R: Real> {
    /// Longest piece that a row is cut into when it has to be converted; short enough for the L1 cache.
    static var piece: Int { 2048 }

    private let dtype: attn_dtype
    private let stride: Int64
    private let step: Int
    /// The row is an array of `R` as it is.
    let isDirect: Bool

    init(_ tensor: Tensor) {
        dtype = tensor.dtype.kernel
        let stride = tensor.strides[tensor.rank - 1]
        self.stride = Int64(stride)
        step = stride &* tensor.dtype.size
        isDirect = (stride == 1 || tensor.shape[tensor.rank - 1] == 1) && tensor.dtype == tensor.dtype.computing
            && tensor.dtype.size == MemoryLayout<R>.size
    }

    /// `count` elements from `first` on, in place or converted into `buffer`.
    @inline(__always)
    func load(_ row: UnsafeRawPointer, _ first: Int, _ count: Int, _ buffer: UnsafeMutablePointer<R>) -> UnsafePointer<R> {
        if isDirect { return row.assumingMemoryBound(to: R.self) + first }
        attn_load_row(dtype, row + first &* step, stride, Int64(count), buffer)
        return UnsafePointer(buffer)
    }

    /// Where to compute `count` elements from `first` on, before `store` puts them into the row.
    @inline(__always)
    func target(_ row: UnsafeMutableRawPointer, _ first: Int, _ buffer: UnsafeMutablePointer<R>) -> UnsafeMutablePointer<R> {
        isDirect ? row.assumingMemoryBound(to: R.self) + first : buffer
    }

    @inline(__always)
    func store(_ row: UnsafeMutableRawPointer, _ first: Int, _ count: Int, _ buffer: UnsafeMutablePointer<R>) {
        if isDirect { return }
        attn_store_row(dtype, buffer, Int64(count), row + first &* step, stride)
    }
}

extension Tensor {
    /// The elements of a (count,) tensor side by side in the computing type of `dtype`: its own memory, or converted into
    /// `place`.
    func reals(of dtype: DType, into place: UnsafeMutableRawPointer?) -> UnsafeRawPointer {
        if hasReals(of: dtype) { return UnsafeRawPointer(data!) }
        if dtype != .float64 || self.dtype == .float64 {
            attn_load_row(self.dtype.kernel, data, Int64(strides[0]), Int64(shape[0]), place)
        } else {
            let doubles = place!.bindMemory(to: Double.self, capacity: shape[0])
            for i in 0..<shape[0] {
                doubles[i] = Double(pointer(byOffset: i &* strides[0]).load(as: Float.self))
            }
        }
        return UnsafeRawPointer(place!)
    }

    /// `reals` needs no place.
    func hasReals(of dtype: DType) -> Bool { self.dtype == dtype.computing && strides[0] == 1 }
}

extension attn_rows {
    /// Rows along the last dim of both tensors.
    init(_ x: Tensor, _ out: Tensor, columns: Int, stream: Bool) {
        let isOne = columns == 1  // side by side whatever the stride
        self.init(dtype: x.dtype.kernel, columns: Int64(columns), x_column: isOne ? 1 : Int64(x.strides[x.rank - 1]),
                  out_column: isOne ? 1 : Int64(out.strides[out.rank - 1]), stream: stream)
    }

    var isContiguous: Bool { x_column == 1 && out_column == 1 }
}

/// Rows in the computing type, for kernels and their parameters.
struct RowScratch {
    fileprivate let memory: UnsafeMutableRawPointer?
    fileprivate let step: Int

    /// nil without rows.
    func row(_ i: Int) -> UnsafeMutableRawPointer? { memory.map { $0 + i &* step } }

    /// The same, of zeros.
    func cleared(_ i: Int) -> UnsafeMutableRawPointer? {
        let row = row(i)
        if let row { memset(row, 0, step) }
        return row
    }
}

/// `count` rows of `columns` reals while `body` runs; asked for before anything is written.
func withRowScratch(_ count: Int, _ columns: Int, _ dtype: DType, _ body: (RowScratch) throws(Failure) -> Void) throws(Failure) {
    if count == 0 { return try body(RowScratch(memory: nil, step: 0)) }
    let line = 64  // of the cache: rows of several threads share none
    let (step, overflow) = columns.multipliedReportingOverflow(by: dtype.computing.size)
    guard !overflow, step <= Int.max - line else { throw Failure.outOfMemory }
    let rounded = (step + line - 1) / line * line
    try withScratch(of: UInt8.self, rounded, times: count) { memory throws(Failure) in
        try body(RowScratch(memory: UnsafeMutableRawPointer(memory), step: rounded))
    }
}

/// Memory for `times` times `count` elements while `body` runs; asked for before anything is written.
func withScratch<T: BitwiseCopyable>(of type: T.Type, _ count: Int, times: Int = 1,
                                     _ body: (UnsafeMutablePointer<T>) throws(Failure) -> Void) throws(Failure) {
    let (elements, o1) = count.multipliedReportingOverflow(by: times)
    let (bytes, o2) = elements.multipliedReportingOverflow(by: MemoryLayout<T>.stride)
    guard !o1, !o2, let memory = malloc(max(bytes, 1)) else { throw Failure.outOfMemory }
    defer { free(memory) }
    try body(memory.bindMemory(to: T.self, capacity: elements))
}
