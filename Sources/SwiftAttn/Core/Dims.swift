/// Shapes and strides held in place, so that a call allocates nothing for them.

/// Up to `Dims.capacity` integers: a shape or the strides of a tensor.
public struct Dims: RandomAccessCollection, Sendable, ExpressibleByArrayLiteral, CustomStringConvertible {
    /// The largest rank of a tensor.
    public static let capacity = 8

    private var storage: InlineArray<8, Int>
    public private(set) var count: Int

    public init(repeating value: Int, count: Int) {
        precondition(count <= Dims.capacity, "rank \(count) exceeds \(Dims.capacity)")
        storage = InlineArray(repeating: value)
        self.count = count
    }

    public init(arrayLiteral elements: Int...) { self.init(elements) }

    public init(_ elements: some Collection<Int>) {
        self.init(repeating: 0, count: elements.count)
        for (i, element) in elements.enumerated() { storage[i] = element }
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { count }

    public subscript(i: Int) -> Int {
        get {
            precondition(i >= 0 && i < count, "dim out of range")
            return storage[i]
        }
        set {
            precondition(i >= 0 && i < count, "dim out of range")
            storage[i] = newValue
        }
    }

    mutating func append(_ value: Int) {
        precondition(count < Dims.capacity, "rank exceeds \(Dims.capacity)")
        storage[count] = value
        count += 1
    }

    public static func == (a: Dims, b: Dims) -> Bool { a.elementsEqual(b) }
    public static func != (a: Dims, b: Dims) -> Bool { !a.elementsEqual(b) }

    /// As NumPy writes shapes: `(2, 3)`, `(5,)`.
    public var description: String {
        count == 1 ? "(\(self[0]),)" : "(" + map(String.init).joined(separator: ", ") + ")"
    }
}
