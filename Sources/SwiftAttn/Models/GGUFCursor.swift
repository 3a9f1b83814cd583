/// Reading a file whose every number may be a lie: nothing is read beyond the end, and no sum of sizes overflows.

/// A place in a file, moving on with every read.
struct GGUFCursor {
    private let bytes: UnsafeRawBufferPointer
    private(set) var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var remaining: Int { bytes.count - offset }

    /// Moves on by `count` bytes and returns where they begin.
    mutating func skip(_ count: Int, _ what: @autoclosure () -> String) throws(Failure) -> Int {
        guard count >= 0, count <= remaining else {
            throw .argument("file: \(what()) at byte \(offset) reaches beyond the end, \(bytes.count) bytes")
        }
        defer { offset += count }
        return offset
    }

    mutating func read<T: BitwiseCopyable>(_ type: T.Type, _ what: @autoclosure () -> String) throws(Failure) -> T {
        let at = try skip(MemoryLayout<T>.size, what())
        return bytes.loadUnaligned(fromByteOffset: at, as: type)
    }

    /// A 64-bit count of things of at least `size` bytes each, all of which still have to come.
    mutating func readCount(ofSize size: Int, _ what: @autoclosure () -> String) throws(Failure) -> Int {
        let at = offset
        let count = try read(UInt64.self, what())
        guard count <= UInt64(remaining / size) else {
            throw .argument("file: \(what()) at byte \(at) is \(count), more than the \(remaining) bytes that follow can hold")
        }
        return Int(count)
    }

    /// A string: its length, then its bytes. Where they are.
    mutating func readString(_ what: @autoclosure () -> String) throws(Failure) -> Range<Int> {
        let count = try readCount(ofSize: 1, "length of \(what())")
        let at = try skip(count, what())
        return at..<at + count
    }

    mutating func readName(_ what: @autoclosure () -> String) throws(Failure) -> String {
        let range = try readString(what())
        guard let name = String(validating: bytes[range], as: UTF8.self) else {
            throw .argument("file: \(what()) at byte \(range.lowerBound) is not UTF-8")
        }
        guard !name.utf8.contains(0) else { throw .argument("file: \(what()) at byte \(range.lowerBound) contains a zero") }
        return name
    }
}
