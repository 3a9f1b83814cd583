/// Files in the GGUF format, versions 2 and 3, little-endian: magic, counts, metadata, tensor headers, aligned data.

/// An open file. It is mapped, and nothing of it is trusted: every count, length and offset is checked before use.
///
/// Source: the format's specification, ggml-org/ggml, docs/gguf.md.
public final class GGUFFile: Sendable {
    public let version: Int
    /// In the file's order.
    public let entries: [GGUFEntry]
    public let tensors: [GGUFTensor]
    let file: MappedFile
    private let entryNumbers, tensorNumbers: [String: Int]

    var bytes: UnsafeRawBufferPointer { file.bytes }

    public init(path: String) throws(Failure) {
        file = try MappedFile(path)
        var cursor = GGUFCursor(file.bytes)
        let magic = try cursor.read(UInt32.self, "magic")
        guard magic == 0x4655_4747 else {
            throw .argument("file: begins with 0x\(String(magic, radix: 16)), expected the letters GGUF")
        }
        let number = try cursor.read(UInt32.self, "version")
        guard number == 2 || number == 3 else {
            let swapped = number.byteSwapped == 2 || number.byteSwapped == 3
            throw .argument("file: version is \(number), expected 2 or 3\(swapped ? " in little-endian order" : "")")
        }
        version = Int(number)
        let tensorCount = try cursor.read(UInt64.self, "number of tensors")
        let entryCount = try cursor.readCount(ofSize: 13, "number of keys")
        guard tensorCount <= UInt64(cursor.remaining / 32) else {
            throw .argument("file: number of tensors is \(tensorCount), more than \(cursor.remaining) bytes can hold")
        }

        var entries: [GGUFEntry] = [], entryNumbers: [String: Int] = [:]
        for i in 0..<entryCount {
            let entry = try cursor.readEntry()
            guard entryNumbers.updateValue(i, forKey: entry.key) == nil else {
                throw .argument("file: the key \(entry.key) comes twice")
            }
            entries.append(entry)
        }
        var headers: [GGUFTensorHeader] = [], tensorNumbers: [String: Int] = [:]
        for i in 0..<Int(tensorCount) {
            let header = try cursor.readTensorHeader()
            guard tensorNumbers.updateValue(i, forKey: header.name) == nil else {
                throw .argument("file: the tensor \(header.name) comes twice")
            }
            headers.append(header)
        }
        self.entries = entries
        self.entryNumbers = entryNumbers
        self.tensorNumbers = tensorNumbers

        let alignment = try GGUFFile.alignment(entries, entryNumbers, file.bytes)
        let start = min((cursor.offset + alignment - 1) / alignment * alignment, file.bytes.count)
        var tensors: [GGUFTensor] = []
        for header in headers {
            try tensors.append(header.placed(from: start, alignment: alignment, count: file.bytes.count))
        }
        try GGUFFile.expectApart(tensors)
        self.tensors = tensors
    }

    public subscript(key: String) -> GGUFEntry? { entryNumbers[key].map { entries[$0] } }

    public func tensor(_ name: String) -> GGUFTensor? { tensorNumbers[name].map { tensors[$0] } }

    private static func alignment(_ entries: [GGUFEntry], _ numbers: [String: Int],
                                  _ bytes: UnsafeRawBufferPointer) throws(Failure) -> Int {
        guard let entry = numbers["general.alignment"].map({ entries[$0] }) else { return 32 }
        guard entry.type == .uint32, !entry.isArray else {
            throw .argument("file: general.alignment is not a single uint32")
        }
        let alignment = Int(bytes.loadUnaligned(fromByteOffset: entry.range.lowerBound, as: UInt32.self))
        guard alignment >= 8, alignment <= 1 << 20, alignment & (alignment - 1) == 0 else {
            throw .argument("file: general.alignment is \(alignment), expected a power of two from 8 to 2^20")
        }
        return alignment
    }

    private static func expectApart(_ tensors: [GGUFTensor]) throws(Failure) {
        let sorted = tensors.sorted { $0.range.lowerBound < $1.range.lowerBound }
        for (a, b) in zip(sorted, sorted.dropFirst()) where a.range.upperBound > b.range.lowerBound {
            throw .argument("\(b.name): begins at byte \(b.range.lowerBound), inside \(a.name)")
        }
    }
}

// MARK: Elements

import CAttnKernels

extension GGUFFile {
    /// out = the elements of a tensor, dequantised; float32, of the tensor's shape, contiguous.
    public func load(_ tensor: GGUFTensor, into out: Tensor) throws(Failure) {
        try Library.requireKernels()
        let format = try tensor.readableFormat()
        guard out.dtype == .float32 else { throw .dtype("out: dtype is \(out.dtype), expected float32") }
        try out.checkedOutput("out").expect(shape: tensor.shape, "out")
        let dense = Tensor(data: out.data, dtype: .float32, shape: out.shape)
        guard dense.isSameView(as: out) else { throw .shape("out: strides are \(out.strides), expected a contiguous tensor") }
        let columns = tensor.shape[tensor.shape.count - 1], rows = tensor.shape.droppingLast(1).reduce(1, *)
        let rowBytes = columns / format.block.elements * format.block.bytes
        let from = data(of: tensor), to = out.data!
        parallelFor(rows, grain: max(elementsPerRange / columns, 1)) { range in
            for row in range {
                let place = to + row * columns * 4
                if let quant = format.quant {
                    attn_quant_load_row(quant, from + row * rowBytes, Int64(columns),
                                        place.assumingMemoryBound(to: Float.self))
                } else {
                    attn_load_row(format.dtype!.kernel, from + row * rowBytes, 1, Int64(columns), place)
                }
            }
        }
    }

    /// Where the bytes of a tensor begin.
    func data(of tensor: GGUFTensor) -> UnsafeRawPointer { bytes.baseAddress! + tensor.range.lowerBound }
}

extension GGUFTensor {
    func readableFormat() throws(Failure) -> GGUFFormat {
        guard let format else {
            throw .dtype("\(name): GGUF tensor type \(type) is not supported, expected F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K or Q6_K")
        }
        return format
    }
}
