/// Elements of any dtype as the type they are computed in.

import CAttnKernels
import Glibc

/// A type that kernels compute in: Float, or Double for float64. (SIMD vectors ask for Codable scalars.)
protocol Real: BinaryFloatingPoint, SIMDScalar, Codable {}
extension Float: Real {}
extension Double: Real {}

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

extension Real {
    /// `count` values at `place`: the elements of a (count,) tensor, or `filler` without one.
    static func fill(_ place: UnsafeMutablePointer<Self>, _ count: Int, from tensor: Tensor?, else filler: Self) {
        guard let tensor else { return place.initialize(repeating: filler, count: count) }
        if tensor.dtype.computing.size == MemoryLayout<Self>.size {
            attn_load_row(tensor.dtype.kernel, tensor.data, Int64(tensor.strides[0]), Int64(count), place)
        } else {
            for i in 0..<count {
                (place + i).initialize(to: Self(tensor.pointer(byOffset: i &* tensor.strides[0]).load(as: Float.self)))
            }
        }
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
