/// Where a model's weights come from: a GGUF file, or tensors handed over by name.

import CAttnKernels

/// How matrices are held.
public enum WeightStorage: Int32, Sendable {
    /// As they come: quantised ones stay so, float16 and bfloat16 too.
    case stored = 0
    /// In float32.
    case float32 = 1
}

/// Finds weights by name; what is missing, or of another shape, is an error that names it.
protocol WeightSource {
    func has(_ name: String) -> Bool
    /// (count,) in float32.
    func vector(_ name: String, count: Int) throws(Failure) -> FloatBuffer
    /// (rows, columns). Where `looksUpRows`, rows can be read one by one.
    func matrix(_ name: String, rows: Int, columns: Int, looksUpRows: Bool) throws(Failure) -> LinearWeight
}

/// Floats of its own, 64-byte aligned.
final class FloatBuffer: @unchecked Sendable {
    let count: Int
    let pointer: UnsafeMutablePointer<Float>

    init(_ count: Int) throws(Failure) {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: 4)
        guard !overflow, let memory = attn_allocate(max(bytes, 1)) else { throw Failure.outOfMemory }
        pointer = memory.bindMemory(to: Float.self, capacity: count)
        self.count = count
    }

    deinit { attn_free(pointer) }
}

private func expect(_ name: String, _ shape: Dims, _ wanted: Dims) throws(Failure) {
    guard shape == wanted else { throw .shape("\(name): shape is \(shape), expected \(wanted)") }
}

/// A float32 matrix that owns its memory, as products like it best.
private func float32Matrix(_ buffer: FloatBuffer, rows: Int, columns: Int, looksUpRows: Bool) throws(Failure) -> LinearWeight {
    let tensor = Tensor(data: buffer.pointer, dtype: .float32, shape: [rows, columns])
    return looksUpRows ? .stored(tensor, owner: buffer) : .packed(try PackedWeight(tensor))
}

/// The tensors of a GGUF file. Quantised and float32 matrices are repacked, and the file's pages given back; float16 and bfloat16
/// ones stay where they are.
struct GGUFWeights: WeightSource {
    private let file: GGUFFile
    private let storage: WeightStorage
    private let arena: WeightArena

    init(_ file: GGUFFile, storage: WeightStorage) throws(Failure) {
        self.file = file
        self.storage = storage
        let quantised = storage == .stored ? file.tensors.filter { $0.format?.quant != nil && $0.shape.count == 2 } : []
        arena = try WeightArena(quantised.map { QuantisedWeight.packedSize($0.format!.quant!, shape: $0.shape) })
    }

    func has(_ name: String) -> Bool { file.tensor(name) != nil }

    private func find(_ name: String, _ shape: Dims) throws(Failure) -> (GGUFTensor, GGUFFormat) {
        guard let tensor = file.tensor(name) else { throw .argument("\(name): the file has no such tensor, expected shape \(shape)") }
        try expect(name, tensor.shape, shape)
        return (tensor, try tensor.readableFormat())
    }

    func vector(_ name: String, count: Int) throws(Failure) -> FloatBuffer {
        let (tensor, _) = try find(name, [count])
        let buffer = try FloatBuffer(count)
        try file.load(tensor, into: Tensor(data: buffer.pointer, dtype: .float32, shape: [count]))
        return buffer
    }

    func matrix(_ name: String, rows: Int, columns: Int, looksUpRows: Bool) throws(Failure) -> LinearWeight {
        let (tensor, format) = try find(name, [rows, columns])
        if storage == .stored, let quant = format.quant {
            defer { file.file.release(tensor.range) }
            return .quantised(try QuantisedWeight(quant, file.data(of: tensor), shape: tensor.shape, in: arena))
        }
        if storage == .stored, format != .float32 {
            let data = UnsafeMutableRawPointer(mutating: file.data(of: tensor))
            return .stored(Tensor(data: data, dtype: format.dtype!, shape: tensor.shape), owner: file)
        }
        defer { file.file.release(tensor.range) }
        let buffer = try FloatBuffer(rows * columns)
        try file.load(tensor, into: Tensor(data: buffer.pointer, dtype: .float32, shape: tensor.shape))
        return try float32Matrix(buffer, rows: rows, columns: columns, looksUpRows: looksUpRows)
    }
}

/// Tensors of the caller, which are copied.
struct NamedTensors: WeightSource {
    let tensors: [String: Tensor]
    let storage: WeightStorage

    func has(_ name: String) -> Bool { tensors[name] != nil }

    private func find(_ name: String, _ shape: Dims) throws(Failure) -> Tensor {
        guard let tensor = tensors[name] else { throw .argument("\(name): no such tensor was given, expected shape \(shape)") }
        try expect(name, tensor.shape, shape)
        guard [.float32, .float16, .bfloat16].contains(tensor.dtype) else {
            throw .dtype("\(name): dtype is \(tensor.dtype), expected float32, float16 or bfloat16")
        }
        return tensor
    }

    private func copy(_ tensor: Tensor, rows: Int, columns: Int) throws(Failure) -> FloatBuffer {
        let buffer = try FloatBuffer(rows * columns)
        for row in 0..<rows {
            let from = tensor.pointer(byOffset: tensor.rank == 2 ? row &* tensor.strides[0] : 0)
            attn_load_row(tensor.dtype.kernel, from, Int64(tensor.strides[tensor.rank - 1]), Int64(columns),
                          buffer.pointer + row * columns)
        }
        return buffer
    }

    func vector(_ name: String, count: Int) throws(Failure) -> FloatBuffer {
        try copy(find(name, [count]), rows: 1, columns: count)
    }

    func matrix(_ name: String, rows: Int, columns: Int, looksUpRows: Bool) throws(Failure) -> LinearWeight {
        let tensor = try find(name, [rows, columns])
        let buffer = try copy(tensor, rows: rows, columns: columns)
        if storage == .float32 || tensor.dtype == .float32 {
            return try float32Matrix(buffer, rows: rows, columns: columns, looksUpRows: looksUpRows)
        }
        let half = try FloatBuffer((rows * columns + 1) / 2)
        for row in 0..<rows { // exact: these numbers came from the same dtype
            attn_store_row(tensor.dtype.kernel, buffer.pointer + row * columns, Int64(columns),
                           UnsafeMutableRawPointer(half.pointer) + row * columns * 2, 1)
        }
        return .stored(Tensor(data: half.pointer, dtype: tensor.dtype, shape: tensor.shape), owner: half)
    }
}
