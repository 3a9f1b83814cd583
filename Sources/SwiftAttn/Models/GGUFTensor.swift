/// Tensors of a GGUF file: names, shapes, formats, and where the bytes lie.

import CAttnKernels

/// How a tensor's elements are stored, numbered as in files.
public enum GGUFFormat: UInt32, Sendable {
    case float32 = 0, float16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8, q4_K = 12, q6_K = 14, bfloat16 = 30

    /// The kernels' name; nil for floating formats.
    var quant: attn_quant? {
        switch self {
        case .q4_0: ATTN_Q4_0
        case .q4_1: ATTN_Q4_1
        case .q8_0: ATTN_Q8_0
        case .q4_K: ATTN_Q4_K
        case .q6_K: ATTN_Q6_K
        default: nil
        }
    }

    /// nil for quantised formats.
    var dtype: DType? {
        switch self {
        case .float32: .float32
        case .float16: .float16
        case .bfloat16: .bfloat16
        default: nil
        }
    }

    /// Neighbours of a row that are stored together, and the bytes of them.
    var block: (elements: Int, bytes: Int) {
        if let quant { return (Int(attn_quant_block(quant)), Int(attn_quant_block_bytes(quant))) }
        return (1, dtype!.size)
    }
}

/// One tensor of a file.
public struct GGUFTensor: Sendable {
    public let name: String
    /// Rows last to first as NumPy writes it: (rows, columns) for a matrix, the file's order reversed.
    public let shape: Dims
    /// The file's number; it may be one that this library does not read.
    public let type: UInt32
    public var format: GGUFFormat? { GGUFFormat(rawValue: type) }
    /// In the file; where the format is not known, where the bytes begin.
    let range: Range<Int>
}

/// A tensor as the file announces it, before the place of the data is known.
struct GGUFTensorHeader {
    let name: String
    let shape: Dims
    let type: UInt32
    let offset: UInt64
}

extension GGUFCursor {
    mutating func readTensorHeader() throws(Failure) -> GGUFTensorHeader {
        let name = try readName("tensor name")
        let rank = try read(UInt32.self, "rank of \(name)")
        guard (1...4).contains(rank) else { throw .shape("\(name): rank is \(rank), expected 1 to 4") }
        var shape: Dims = []
        for i in 0..<Int(rank) {
            let size = try read(UInt64.self, "shape of \(name)")
            guard size > 0, size <= UInt64(1) << 48 else {
                throw .shape("\(name): dim \(i) of the file's shape is \(size), expected 1 to 2^48")
            }
            shape.insert(Int(size), at: 0)
        }
        let type = try read(UInt32.self, "type of \(name)")
        let offset = try read(UInt64.self, "offset of \(name)")
        return GGUFTensorHeader(name: name, shape: shape, type: type, offset: offset)
    }
}

extension GGUFTensorHeader {
    /// The tensor, with its bytes inside a file of `count` bytes whose data begins at `start`.
    func placed(from start: Int, alignment: Int, count: Int) throws(Failure) -> GGUFTensor {
        guard offset % UInt64(alignment) == 0 else {
            throw .argument("\(name): offset is \(offset), expected a multiple of the alignment \(alignment)")
        }
        guard offset <= UInt64(count - start) else {
            throw .argument("\(name): offset is \(offset), the file's data has \(count - start) bytes")
        }
        let at = start + Int(offset)
        guard let format = GGUFFormat(rawValue: type) else {
            return GGUFTensor(name: name, shape: shape, type: type, range: at..<at)
        }
        let block = format.block, columns = shape[shape.count - 1]
        guard columns % block.elements == 0 else {
            throw .shape("\(name): rows have \(columns) elements, expected a multiple of \(block.elements) for \(format)")
        }
        var size = columns / block.elements * block.bytes
        for dim in shape.droppingLast(1) {
            let (product, overflow) = size.multipliedReportingOverflow(by: dim)
            guard !overflow else { throw .shape("\(name): shape is \(shape), which no memory can hold") }
            size = product
        }
        guard size <= count - at else {
            throw .argument("\(name): \(shape) of \(format) needs \(size) bytes, the file has \(count - at) from there on")
        }
        return GGUFTensor(name: name, shape: shape, type: type, range: at..<at + size)
    }
}
