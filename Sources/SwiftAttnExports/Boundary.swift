/// Crossing the C boundary: tensors and options unpacked, failures turned into a status and a thread's message.

import CSwiftAttn
import Glibc
import SwiftAttn

/// Runs `body`; a failure becomes its status, and its text what `swiftattn_last_error` returns on this thread.
func status(_ body: () throws(Failure) -> Void) -> Int32 {
    do {
        try body()
        return SWIFTATTN_SUCCESS
    } catch {
        LastError.set(error.message)
        return error.status.rawValue
    }
}

/// The calling thread's newest message, as a C string that the thread owns.
enum LastError {
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { free($0) }
        return key
    }()
    nonisolated(unsafe) private static let empty: UnsafePointer<CChar> = UnsafePointer(strdup("")!)

    static func set(_ message: String) {
        let old = pthread_getspecific(key)
        pthread_setspecific(key, strdup(message))
        free(old)
    }

    static var current: UnsafePointer<CChar> {
        pthread_getspecific(key).map { UnsafePointer($0.assumingMemoryBound(to: CChar.self)) } ?? empty
    }
}

/// A required tensor of the C ABI as a view.
func tensor(_ pointer: UnsafePointer<swiftattn_tensor>?, _ name: StaticString) throws(Failure) -> Tensor {
    guard let pointer else { throw Failure(.nullPointer, "\(name): is NULL, expected a tensor") }
    return try view(pointer, name)
}

/// A tensor that may be NULL.
func optionalTensor(_ pointer: UnsafePointer<swiftattn_tensor>?, _ name: StaticString) throws(Failure) -> Tensor? {
    guard let pointer else { return nil }
    return try view(pointer, name)
}

private func view(_ pointer: UnsafePointer<swiftattn_tensor>, _ name: StaticString) throws(Failure) -> Tensor {
    let ndim = Int(pointer.pointee.ndim)
    guard (0...Dims.capacity).contains(ndim) else {
        throw Failure(.invalidShape, "\(name): ndim is \(ndim), expected 0 to \(Dims.capacity)")
    }
    let dtype = try dtype(pointer.pointee.dtype, name)
    let fields = UnsafeRawPointer(pointer)
    let shape = Dims(at: fields + MemoryLayout<swiftattn_tensor>.offset(of: \.shape)!, count: ndim)
    let strides = Dims(at: fields + MemoryLayout<swiftattn_tensor>.offset(of: \.strides)!, count: ndim)
    let address = UInt(bitPattern: pointer.pointee.data).addingReportingOverflow(UInt(pointer.pointee.byte_offset))
    guard !address.overflow, address.partialValue <= UInt(Int.max) else {
        throw Failure(.invalidArgument, "\(name): byte_offset \(pointer.pointee.byte_offset) reaches beyond the address space")
    }
    let data = pointer.pointee.data == nil ? nil : UnsafeMutableRawPointer(bitPattern: address.partialValue)
    return Tensor(data: data, dtype: dtype, shape: shape, strides: strides)
}

/// A view as the C ABI describes it; nil is an empty tensor of shape (0,).
func description(of view: Tensor?) -> swiftattn_tensor {
    var result = swiftattn_tensor()
    guard let view else {
        result.ndim = 1
        return result
    }
    result.data = view.data
    result.ndim = Int32(view.rank)
    result.dtype = description(of: view.dtype)
    withUnsafeMutableBytes(of: &result.shape) { raw in
        for i in view.shape.indices { raw.storeBytes(of: Int64(view.shape[i]), toByteOffset: i * 8, as: Int64.self) }
    }
    withUnsafeMutableBytes(of: &result.strides) { raw in
        for i in view.shape.indices { raw.storeBytes(of: Int64(view.strides[i]), toByteOffset: i * 8, as: Int64.self) }
    }
    return result
}

private func description(of dtype: DType) -> swiftattn_dtype {
    let code = switch dtype {
    case .float32, .float16, .float64: SWIFTATTN_DTYPE_CODE_FLOAT
    case .bfloat16: SWIFTATTN_DTYPE_CODE_BFLOAT
    case .bool: SWIFTATTN_DTYPE_CODE_BOOL
    case .int8, .int32, .int64: SWIFTATTN_DTYPE_CODE_INT
    }
    return swiftattn_dtype(code: UInt8(code), bits: UInt8(8 * dtype.size), lanes: 1)
}

func dtype(_ dtype: swiftattn_dtype, _ name: StaticString) throws(Failure) -> DType {
    let lanes = dtype.lanes
    switch (Int32(dtype.code), dtype.bits) {
    case (SWIFTATTN_DTYPE_CODE_FLOAT, 32) where lanes == 1: return .float32
    case (SWIFTATTN_DTYPE_CODE_FLOAT, 16) where lanes == 1: return .float16
    case (SWIFTATTN_DTYPE_CODE_FLOAT, 64) where lanes == 1: return .float64
    case (SWIFTATTN_DTYPE_CODE_BFLOAT, 16) where lanes == 1: return .bfloat16
    case (SWIFTATTN_DTYPE_CODE_BOOL, 8) where lanes == 1: return .bool
    case (SWIFTATTN_DTYPE_CODE_INT, 8) where lanes == 1: return .int8
    case (SWIFTATTN_DTYPE_CODE_INT, 32) where lanes == 1: return .int32
    case (SWIFTATTN_DTYPE_CODE_INT, 64) where lanes == 1: return .int64
    default:
        throw Failure(.invalidDType, "\(name): dtype code \(dtype.code) with \(dtype.bits) bits and \(lanes) lanes, "
            + "expected float32, float16, bfloat16, float64, bool, int8, int32 or int64")
    }
}

/// The fields of an options struct that the caller's version of the header has; the rest keep their defaults (zeros).
/// A size larger than ours is a newer header's: fine while what we do not know is zero.
func options<T>(_ pointer: UnsafePointer<T>?, smallest: Int) throws(Failure) -> T {
    let size = MemoryLayout<T>.size
    return try withUnsafeTemporaryAllocation(byteCount: size, alignment: MemoryLayout<T>.alignment) {
        (copy: UnsafeMutableRawBufferPointer) throws(Failure) -> T in
        copy.initializeMemory(as: UInt8.self, repeating: 0)
        if let pointer {
            let raw = UnsafeRawPointer(pointer)
            let given = Int(raw.load(as: UInt32.self))
            guard given >= smallest, given <= 4096 else {
                throw Failure(.structSize, "options: struct_size is \(given), expected \(size)")
            }
            copy.copyMemory(from: UnsafeRawBufferPointer(start: raw, count: min(given, size)))
            for i in min(given, size)..<given where raw.load(fromByteOffset: i, as: UInt8.self) != 0 {
                throw Failure(.structSize, "options: struct_size is \(given) with unknown options set, expected \(size)")
            }
        }
        return copy.load(as: T.self)
    }
}

/// A C enumeration's value.
func enumeration<E: RawRepresentable<Int32>>(_ value: Int32, _ name: StaticString, _ expected: StaticString) throws(Failure) -> E {
    guard let result = E(rawValue: value) else {
        throw Failure(.invalidArgument, "\(name): expected \(expected), got \(value)")
    }
    return result
}
