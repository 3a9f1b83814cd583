/// Metadata of a GGUF file: where each value lies, and reading it.

/// Types of metadata values, numbered as in files.
public enum GGUFType: UInt32, Sendable {
    case uint8 = 0, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes of a value; nil where they vary.
    var size: Int? {
        switch self {
        case .uint8, .int8, .bool: 1
        case .uint16, .int16: 2
        case .uint32, .int32, .float32: 4
        case .uint64, .int64, .float64: 8
        case .string, .array: nil
        }
    }

    /// Bytes that a value has at least.
    var smallestSize: Int { size ?? (self == .string ? 8 : 12) }
}

/// One key with its value, or values.
public struct GGUFEntry: Sendable {
    public let key: String
    /// Of the elements, where `isArray`.
    public let type: GGUFType
    public let isArray: Bool
    /// 1 unless `isArray`.
    public let count: Int
    /// Bytes of the values in the file.
    let range: Range<Int>
}

extension GGUFCursor {
    /// Arrays of arrays of so many levels are taken; the format has no limit, and no file has reason for more.
    private static let deepestArray = 4

    mutating func readEntry() throws(Failure) -> GGUFEntry {
        let key = try readName("key")
        guard !key.isEmpty else { throw .argument("file: a key at byte \(offset) is empty") }
        var type = try readType(of: key)
        var count = 1
        let isArray = type == .array
        if isArray {
            type = try readType(of: key)
            count = try readCount(ofSize: type.smallestSize, "length of \(key)")
        }
        let start = offset
        try skipValues(type, count, of: key, depth: 1)
        return GGUFEntry(key: key, type: type, isArray: isArray, count: count, range: start..<offset)
    }

    private mutating func readType(of key: String) throws(Failure) -> GGUFType {
        let number = try read(UInt32.self, "type of \(key)")
        guard let type = GGUFType(rawValue: number) else {
            throw .argument("file: \(key) has the unknown type \(number), expected 0 to 12")
        }
        return type
    }

    private mutating func skipValues(_ type: GGUFType, _ count: Int, of key: String, depth: Int) throws(Failure) {
        if let size = type.size {
            _ = try skip(count * size, key) // count has been held against the bytes that remain
            return
        }
        for _ in 0..<count {
            if type == .string {
                _ = try readString(key)
                continue
            }
            guard depth < GGUFCursor.deepestArray else {
                throw .argument("file: \(key) has arrays within arrays, more than \(GGUFCursor.deepestArray) deep")
            }
            let inner = try readType(of: key)
            let length = try readCount(ofSize: inner.smallestSize, "length of \(key)")
            try skipValues(inner, length, of: key, depth: depth + 1)
        }
    }
}

// MARK: Reading values

extension GGUFFile {
    /// The integers of an entry: unsigned and signed of any width, and bool.
    public func integers(_ entry: GGUFEntry) throws(Failure) -> [Int] {
        try requireMemory(for: entry.count, of: Int.self)
        switch entry.type {
        case .uint8, .bool: return load(entry, UInt8.self) { Int($0) }
        case .int8: return load(entry, Int8.self) { Int($0) }
        case .uint16: return load(entry, UInt16.self) { Int($0) }
        case .int16: return load(entry, Int16.self) { Int($0) }
        case .uint32: return load(entry, UInt32.self) { Int($0) }
        case .int32: return load(entry, Int32.self) { Int($0) }
        case .int64: return load(entry, Int64.self) { Int($0) }
        case .uint64:
            let numbers = load(entry, UInt64.self) { Int(exactly: $0) }
            guard !numbers.contains(nil) else { throw .argument("file: \(entry.key) holds a number beyond int64") }
            return numbers.map { $0! }
        default: throw .argument("file: \(entry.key) is \(entry.typeName), expected integers")
        }
    }

    /// The numbers of an entry, integers included.
    public func numbers(_ entry: GGUFEntry) throws(Failure) -> [Double] {
        try requireMemory(for: entry.count, of: Double.self)
        switch entry.type {
        case .float32: return load(entry, Float.self) { Double($0) }
        case .float64: return load(entry, Double.self) { $0 }
        case .string, .array: throw .argument("file: \(entry.key) is \(entry.typeName), expected numbers")
        default: return try integers(entry).map { Double($0) }
        }
    }

    /// The numbers of an entry in out (count,): int64 for integers, or float64.
    public func numbers(_ entry: GGUFEntry, into out: Tensor) throws(Failure) {
        try out.checkedOutput("out").expect(shape: [entry.count], "out")
        switch out.dtype {
        case .int64:
            for (i, number) in try integers(entry).enumerated() {
                out.pointer(byOffset: i &* out.strides[0]).storeBytes(of: Int64(number), as: Int64.self)
            }
        case .float64:
            for (i, number) in try numbers(entry).enumerated() {
                out.pointer(byOffset: i &* out.strides[0]).storeBytes(of: number, as: Double.self)
            }
        default: throw .dtype("out: dtype is \(out.dtype), expected int64 or float64")
        }
    }

    /// The strings of an entry, one behind the other, and where each of them begins; the last offset is the end. UTF-8.
    public func strings(_ entry: GGUFEntry) throws(Failure) -> (text: [UInt8], offsets: [Int]) {
        guard entry.type == .string else { throw .argument("file: \(entry.key) is \(entry.typeName), expected strings") }
        try requireMemory(for: entry.range.count + 8 * entry.count, of: UInt8.self)
        var text: [UInt8] = [], offsets = [0]
        text.reserveCapacity(entry.range.count)
        offsets.reserveCapacity(entry.count + 1)
        var at = entry.range.lowerBound
        for i in 0..<entry.count {
            let length = Int(bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self))
            let string = bytes[at + 8..<at + 8 + length]
            guard String(validating: string, as: UTF8.self) != nil else {
                throw .argument("file: \(entry.key) is not UTF-8 in string \(i)")
            }
            text.append(contentsOf: string)
            offsets.append(text.count)
            at += 8 + length
        }
        return (text, offsets)
    }

    private func load<T: BitwiseCopyable, R>(_ entry: GGUFEntry, _ type: T.Type, _ convert: (T) -> R) -> [R] {
        (0..<entry.count).map {
            convert(bytes.loadUnaligned(fromByteOffset: entry.range.lowerBound + $0 * MemoryLayout<T>.size, as: type))
        }
    }

    /// A single integer; nil without the key.
    public func integer(_ key: String) throws(Failure) -> Int? {
        guard let entry = self[key] else { return nil }
        return try integers(single(entry))[0]
    }

    public func number(_ key: String) throws(Failure) -> Double? {
        guard let entry = self[key] else { return nil }
        return try numbers(single(entry))[0]
    }

    public func string(_ key: String) throws(Failure) -> String? {
        guard let entry = self[key] else { return nil }
        return try String(decoding: strings(single(entry)).text, as: UTF8.self)
    }

    private func single(_ entry: GGUFEntry) throws(Failure) -> GGUFEntry {
        guard !entry.isArray else { throw .argument("file: \(entry.key) is \(entry.typeName), expected a single value") }
        return entry
    }
}

extension GGUFEntry {
    fileprivate var typeName: String { isArray ? "an array of \(count) of type \(type)" : "of type \(type)" }
}
