/// Shapes and strides held in place, so that a call allocates nothing for them.

/// Up to `Dims.capacity` integers: a shape or the strides of a tensor.
@frozen
public struct Dims: RandomAccessCollection, Sendable, ExpressibleByArrayLiteral, CustomStringConvertible {
    /// The largest rank of a tensor.
    @inlinable public static var capacity: Int { 8 }

    @usableFromInline var storage: InlineArray<8, Int>
    @usableFromInline var used: Int

    @inlinable
    public init(repeating value: Int, count: Int) {
        precondition(count <= Dims.capacity, "rank exceeds the capacity")
        storage = InlineArray(repeating: value)
        used = count
    }

    /// The first `count` of the `Dims.capacity` integers at `place`.
    @inlinable
    package init(at place: UnsafeRawPointer, count: Int) {
        precondition(count <= Dims.capacity, "rank exceeds the capacity")
        storage = place.load(as: InlineArray<8, Int>.self)
        used = count
    }

    public init(arrayLiteral elements: Int...) { self.init(elements) }

    init() { self.init(repeating: 0, count: 0) }

    public init(_ elements: some Collection<Int>) {
        self.init(repeating: 0, count: elements.count)
        for (i, element) in elements.enumerated() { storage[i] = element }
    }

    @inlinable public var count: Int { used }
    @inlinable public var startIndex: Int { 0 }
    @inlinable public var endIndex: Int { count }

    @inlinable
    public subscript(i: Int) -> Int {
        get {
            precondition(UInt(bitPattern: i) < UInt(bitPattern: used), "dim out of range")
            return storage[i]
        }
        set {
            precondition(UInt(bitPattern: i) < UInt(bitPattern: used), "dim out of range")
            storage[i] = newValue
        }
    }

    mutating func append(_ value: Int) {
        precondition(count < Dims.capacity, "rank exceeds \(Dims.capacity)")
        storage[used] = value
        used += 1
    }

    /// The first ones, without the last `dropped`.
    func droppingLast(_ dropped: Int) -> Dims {
        precondition(dropped <= count, "more dims dropped than there are")
        var result = self
        result.used -= dropped
        return result
    }

    mutating func insert(_ value: Int, at position: Int) {
        append(value)
        var i = count - 1
        while i > position {
            storage[i] = storage[i - 1]
            i -= 1
        }
        storage[position] = value
    }

    public static func == (a: Dims, b: Dims) -> Bool {
        if a.count != b.count { return false }
        for i in 0..<a.count where a.storage[i] != b.storage[i] { return false }
        return true
    }

    public static func != (a: Dims, b: Dims) -> Bool { !(a == b) }

    /// As NumPy writes shapes: `(2, 3)`, `(5,)`.
    public var description: String {
        count == 1 ? "(\(self[0]),)" : "(" + map(String.init).joined(separator: ", ") + ")"
    }
}
