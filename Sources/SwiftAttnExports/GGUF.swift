/// Chapter "GGUF files" of swiftattn.h.

import CSwiftAttn
import Glibc
import SwiftAttn

/// The file with what its C callers borrow from it.
private final class GGUFHandle: @unchecked Sendable {
    let file: GGUFFile
    let keyNames, tensorNames: [UnsafeMutablePointer<CChar>]
    private let lock = Lock()
    private var strings: (text: [UInt8], offsets: [Int]) = ([], [])

    init(_ file: GGUFFile) {
        self.file = file
        keyNames = file.entries.map { strdup($0.key) }
        tensorNames = file.tensors.map { strdup($0.name) }
    }

    deinit {
        for name in keyNames + tensorNames { free(name) }
    }

    /// Keeps the strings until the next ones; the arrays' memory does not move while nobody changes them.
    func keep(_ new: (text: [UInt8], offsets: [Int])) -> (UnsafePointer<CChar>, UnsafePointer<Int64>) {
        lock.locked {
            strings = (new.text + [0], new.offsets)
            let text = strings.text.withUnsafeBytes { $0.baseAddress!.assumingMemoryBound(to: CChar.self) }
            let offsets = strings.offsets.withUnsafeBytes { $0.baseAddress!.assumingMemoryBound(to: Int64.self) }
            return (text, offsets)
        }
    }

    static func at(_ pointer: OpaquePointer?) throws(Failure) -> GGUFHandle {
        try object(pointer, GGUFHandle.self, "file", "an open file")
    }

    func entry(_ index: Int64) throws(Failure) -> GGUFEntry {
        guard file.entries.indices.contains(Int(index)) else { throw GGUFHandle.range(index, file.entries.count) }
        return file.entries[Int(index)]
    }

    func tensor(_ index: Int64) throws(Failure) -> GGUFTensor {
        guard file.tensors.indices.contains(Int(index)) else { throw GGUFHandle.range(index, file.tensors.count) }
        return file.tensors[Int(index)]
    }

    private static func range(_ index: Int64, _ count: Int) -> Failure {
        Failure(.invalidArgument, "index: expected 0 <= index < \(count), got \(index)")
    }
}

/// A place that the caller gives for a result.
func place<T>(_ pointer: UnsafeMutablePointer<T>?, _ name: StaticString) throws(Failure) -> UnsafeMutablePointer<T> {
    guard let pointer else { throw Failure(.nullPointer, "\(name): is NULL, expected a place for the result") }
    return pointer
}

func path(_ pointer: UnsafePointer<CChar>?) throws(Failure) -> String {
    guard let pointer else { throw Failure(.nullPointer, "path: is NULL, expected a file's name") }
    return String(cString: pointer)
}

@_cdecl("swiftattn_gguf_open")
public func swiftattn_gguf_open(_ path: UnsafePointer<CChar>?, _ file: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    status { () throws(Failure) in
        let result = try place(file, "file")
        result.pointee = try handle(GGUFHandle(GGUFFile(path: SwiftAttnExports.path(path))))
    }
}

@_cdecl("swiftattn_gguf_close")
public func swiftattn_gguf_close(_ file: OpaquePointer?) {
    release(file, GGUFHandle.self)
}

@_cdecl("swiftattn_gguf_count")
public func swiftattn_gguf_count(
    _ file: OpaquePointer?, _ keys: UnsafeMutablePointer<Int64>?, _ tensors: UnsafeMutablePointer<Int64>?
) -> Int32 {
    status { () throws(Failure) in
        let file = try GGUFHandle.at(file).file
        keys?.pointee = Int64(file.entries.count)
        tensors?.pointee = Int64(file.tensors.count)
    }
}

@_cdecl("swiftattn_gguf_key")
public func swiftattn_gguf_key(
    _ file: OpaquePointer?, _ index: Int64, _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>?,
    _ type: UnsafeMutablePointer<Int32>?, _ is_array: UnsafeMutablePointer<Int32>?, _ count: UnsafeMutablePointer<Int64>?
) -> Int32 {
    status { () throws(Failure) in
        let handle = try GGUFHandle.at(file), entry = try handle.entry(index)
        name?.pointee = UnsafePointer(handle.keyNames[Int(index)])
        type?.pointee = Int32(entry.type.rawValue)
        is_array?.pointee = entry.isArray ? 1 : 0
        count?.pointee = Int64(entry.count)
    }
}

@_cdecl("swiftattn_gguf_numbers")
public func swiftattn_gguf_numbers(_ file: OpaquePointer?, _ index: Int64, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        let handle = try GGUFHandle.at(file)
        try handle.file.numbers(handle.entry(index), into: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_gguf_strings")
public func swiftattn_gguf_strings(
    _ file: OpaquePointer?, _ index: Int64, _ text: UnsafeMutablePointer<UnsafePointer<CChar>?>?,
    _ offsets: UnsafeMutablePointer<UnsafePointer<Int64>?>?
) -> Int32 {
    status { () throws(Failure) in
        let handle = try GGUFHandle.at(file), text = try place(text, "text"), offsets = try place(offsets, "offsets")
        let kept = try handle.keep(handle.file.strings(handle.entry(index)))
        text.pointee = kept.0
        offsets.pointee = kept.1
    }
}

@_cdecl("swiftattn_gguf_tensor")
public func swiftattn_gguf_tensor(
    _ file: OpaquePointer?, _ index: Int64, _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>?,
    _ format: UnsafeMutablePointer<Int32>?, _ ndim: UnsafeMutablePointer<Int32>?, _ shape: UnsafeMutablePointer<Int64>?
) -> Int32 {
    status { () throws(Failure) in
        let handle = try GGUFHandle.at(file), tensor = try handle.tensor(index)
        name?.pointee = UnsafePointer(handle.tensorNames[Int(index)])
        format?.pointee = Int32(bitPattern: tensor.type)
        ndim?.pointee = Int32(tensor.shape.count)
        if let shape { for (i, size) in tensor.shape.enumerated() { shape[i] = Int64(size) } }
    }
}

@_cdecl("swiftattn_gguf_load")
public func swiftattn_gguf_load(_ file: OpaquePointer?, _ index: Int64, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        let handle = try GGUFHandle.at(file)
        try handle.file.load(handle.tensor(index), into: tensor(out, "out"))
    }
}
