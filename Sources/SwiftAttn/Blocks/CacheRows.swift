/// The memory of a cache: rows that are written once, converted or quantised on the way in.

import CAttnKernels
import Glibc

/// `count` rows of `width` elements side by side, 64-byte aligned, zero at first. Rows of int8 have a scale each:
///
///     scale = max_i |x[i]| / 127        q[i] = x[i] / scale, rounded to the nearest, ties to even, within ±127
///
/// in float32, and stand for scale * q[i]: off by at most scale / 2. A row of zeros has scale 0; one that holds NaN or Inf
/// has scale NaN, and so is NaN as a whole.
struct CacheRows {
    let dtype: DType
    let width: Int
    let elements: UnsafeMutableRawPointer
    /// Of int8 rows.
    let scales: UnsafeMutablePointer<Float>?
    private let memory: [UnsafeMutableRawPointer]

    init(_ count: Int, width: Int, _ dtype: DType) throws(Failure) {
        self.dtype = dtype
        self.width = width
        let (total, overflow) = count.multipliedReportingOverflow(by: width)
        guard !overflow else { throw Failure.outOfMemory }
        let (block, first) = try CacheRows.allocate(total, of: dtype.size)
        elements = first
        if dtype == .int8 {
            do {
                let (other, first) = try CacheRows.allocate(count, of: MemoryLayout<Float>.size)
                scales = first.bindMemory(to: Float.self, capacity: count)
                memory = [block, other]
            } catch {
                Glibc.free(block)
                throw error
            }
        } else {
            scales = nil
            memory = [block]
        }
    }

    /// The system zeroes large blocks page by page, when they are first touched: a cache costs what it holds.
    private static func allocate(_ count: Int, of size: Int) throws(Failure)
        -> (block: UnsafeMutableRawPointer, first: UnsafeMutableRawPointer) {
        let line = 64
        let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
        guard !overflow, bytes <= Int.max - line, let block = calloc(1, bytes + line) else { throw Failure.outOfMemory }
        return (block, block.alignedUp(toMultipleOf: line))
    }

    func free() {
        for block in memory { Glibc.free(block) }
    }

    /// The address of a row.
    func row(_ n: Int) -> UnsafeMutableRawPointer { elements + n &* width &* dtype.size }

    /// `count` rows of `source` become the rows `first`, `first + step`, ... `source` has the strides of its rows and of its
    /// elements; it is float32, float16 or bfloat16.
    func store(_ source: UnsafeRawPointer, _ sourceType: DType, strides: (row: Int, element: Int), count: Int,
               at first: Int, step: Int = 1) {
        if width == 0 || count == 0 { return }
        let isDense = strides.element == 1 || width == 1
        let bytes = width &* dtype.size
        if sourceType == dtype && isDense {
            if step == 1 && (strides.row == width || count == 1) {
                row(first).copyMemory(from: source, byteCount: count &* bytes)
            } else {
                for i in 0..<count {
                    row(first &+ i &* step).copyMemory(from: source + i &* strides.row &* dtype.size, byteCount: bytes)
                }
            }
            return
        }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { reals in
            let line = reals.baseAddress!
            for i in 0..<count {
                let from = source + i &* strides.row &* sourceType.size
                let to = first &+ i &* step
                switch dtype {
                case .float32:
                    attn_load_row(sourceType.kernel, from, Int64(strides.element), Int64(width), row(to))
                case .int8:
                    attn_load_row(sourceType.kernel, from, Int64(strides.element), Int64(width), line)
                    scales![to] = quantize(line, width, row(to).assumingMemoryBound(to: Int8.self))
                default:
                    attn_load_row(sourceType.kernel, from, Int64(strides.element), Int64(width), line)
                    attn_store_row(dtype.kernel, line, Int64(width), row(to), 1)
                }
            }
        }
    }

    /// Rows `first`, `first + 1`, ... become copies of `count` rows of `other`, of the same dtype and width; they may
    /// overlap.
    func copy(_ count: Int, from other: CacheRows, _ otherFirst: Int, at first: Int) {
        row(first).copyMemory(from: other.row(otherFirst), byteCount: count &* width &* dtype.size)
        if let scales { (scales + first).update(from: other.scales! + otherFirst, count: count) }
    }

    /// As a tensor of these dims and strides, counted in rows.
    func view(_ shape: Dims, rowStrides: Dims) -> Tensor {
        var (shape, strides) = (shape, Dims(rowStrides.map { $0 &* width }))
        shape.append(width)
        strides.append(1)
        return Tensor(data: elements, dtype: dtype, shape: shape, strides: strides)
    }

    /// The scales likewise; nil unless the rows are int8.
    func scalesView(_ shape: Dims, rowStrides: Dims) -> Tensor? {
        scales.map { Tensor(data: UnsafeMutableRawPointer($0), dtype: .float32, shape: shape, strides: rowStrides) }
    }
}

/// Writes q and gives the scale: see `CacheRows`.
private func quantize(_ x: UnsafePointer<Float>, _ count: Int, _ q: UnsafeMutablePointer<Int8>) -> Float {
    typealias Floats = SIMD16<Float>
    let lanes = Floats.scalarCount, whole = count / lanes * lanes
    let input = UnsafeRawPointer(x)
    /* Without their sign, floats are in the order of their bits, Inf above all numbers and NaN above Inf. */
    var tops = SIMD16<Int32>()
    for i in stride(from: 0, to: whole, by: lanes) {
        let magnitude = input.loadUnaligned(fromByteOffset: i &* 4, as: SIMD16<Int32>.self) & SIMD16(repeating: 0x7fff_ffff)
        tops.replace(with: magnitude, where: magnitude .> tops)
    }
    var top = tops.max()
    for i in whole..<count { top = max(top, Int32(bitPattern: x[i].magnitude.bitPattern)) }
    let largest = Float(bitPattern: UInt32(top))
    let scale = largest / 127
    guard largest.isFinite, scale > 0 else {
        q.update(repeating: 0, count: count)
        return largest.isFinite ? 0 : .nan
    }
    /* Added to 1.5 * 2^23, a number is rounded to an integer, which stands in the low bits of the sum. */
    let magic: Float = 0x1.8p23
    let output = UnsafeMutableRawPointer(q)
    for i in stride(from: 0, to: whole, by: lanes) {
        var y = input.loadUnaligned(fromByteOffset: i &* 4, as: Floats.self) / scale
        y.clamp(lowerBound: Floats(repeating: -127), upperBound: Floats(repeating: 127))
        let bits = unsafeBitCast(y + magic, to: SIMD16<UInt32>.self)
        output.storeBytes(of: SIMD16<UInt8>(truncatingIfNeeded: bits), toByteOffset: i, as: SIMD16<UInt8>.self)
    }
    for i in whole..<count {
        let y = min(max(x[i] / scale, -127), 127)
        q[i] = Int8(truncatingIfNeeded: (y + magic).bitPattern)
    }
    return scale
}
