/// Owned arrays of any rank: what the functions of this module take and return when no memory is to be managed.

/// Elements in row-major order, and their shape.
///
///     let x = try NDArray<Float>([1, 2, 3, 4, 5, 6], shape: [2, 3])
///     x[1, 2]                      // 6
///     let y = try softmax(x)       // another array, of the same shape
///
/// A value type: a copy is independent, and shares its memory until one of the two is written to.
public struct NDArray<Element: TensorElement>: Sendable {
    public private(set) var elements: [Element]
    public let shape: [Int]

    /// - Throws: `Failure` unless the shape has `elements.count` places and at most 8 dims.
    public init(_ elements: [Element], shape: [Int]) throws(Failure) {
        let count = try places(shape)
        guard elements.count == count else {
            throw .shape("elements: count is \(elements.count), expected \(count) for shape \(Dims(shape))")
        }
        self.elements = elements
        self.shape = shape
    }

    /// Rank 1.
    public init(_ elements: [Element]) {
        self.elements = elements
        shape = [elements.count]
    }

    /// One element in all places.
    ///
    /// - Throws: `Failure` for a shape that cannot be.
    public init(repeating element: Element, shape: [Int]) throws(Failure) {
        let count = try places(shape)
        try requireMemory(for: count, of: Element.self)
        elements = [Element](repeating: element, count: count)
        self.shape = shape
    }

    /// What `write` puts into a tensor of this shape; it must set all elements.
    init(shape: Dims, _ write: (Tensor) throws(Failure) -> Void) throws(Failure) {
        let count = try places(Array(shape))
        try requireMemory(for: count, of: Element.self)
        var failure: Failure?
        elements = [Element](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(Failure) {
                try write(Tensor(data: UnsafeMutableRawPointer(buffer.baseAddress), dtype: Element.dtype, shape: shape))
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        self.shape = Array(shape)
    }

    public var rank: Int { shape.count }

    /// The element at an index of as many numbers as there are dims.
    public subscript(_ index: Int...) -> Element {
        get { elements[offset(index)] }
        set { elements[offset(index)] = newValue }
    }

    private func offset(_ index: [Int]) -> Int {
        precondition(index.count == rank, "index has \(index.count) numbers, the array \(rank) dims")
        var offset = 0
        for (i, size) in zip(index, shape) {
            precondition(i >= 0 && i < size, "index \(index) is not within shape \(shape)")
            offset = offset * size + i
        }
        return offset
    }

    /// Calls `body` with a view of the elements that is valid until it returns, for writing.
    public mutating func withMutableTensor<R>(_ body: (Tensor) throws(Failure) -> R) throws(Failure) -> R {
        let shape = Dims(shape)
        return try elements.withUnsafeMutableBufferPointer { (buffer) throws(Failure) -> R in
            try body(Tensor(buffer, shape: shape))
        }
    }
}

extension NDArray: Equatable where Element: Equatable {}

extension NDArray: ExpressibleByArrayLiteral {
    /// Rank 1.
    public init(arrayLiteral elements: Element...) { self.init(elements) }
}

/// Number of elements of an array of this shape.
private func places(_ shape: [Int]) throws(Failure) -> Int {
    guard shape.count <= Dims.capacity else {
        throw .shape("shape: rank is \(shape.count), expected at most \(Dims.capacity)")
    }
    var count = 1
    for (i, size) in shape.enumerated() {
        guard size >= 0 else { throw .shape("shape: dim \(i) is \(size), expected at least 0") }
        let (product, overflow) = count.multipliedReportingOverflow(by: size)
        guard !overflow else { throw Failure.outOfMemory }
        count = product
    }
    return count
}

// MARK: Views

/// What lends its elements as a tensor: `NDArray`, and `Array` as rank 1.
public protocol TensorSource: Sendable {
    /// Calls `body` with a view of the elements that is valid until it returns, for reading.
    func withTensor<R>(_ body: (Tensor) throws(Failure) -> R) throws(Failure) -> R
}

extension NDArray: TensorSource {
    public func withTensor<R>(_ body: (Tensor) throws(Failure) -> R) throws(Failure) -> R {
        try elements.withUnsafeBufferPointer { (buffer) throws(Failure) -> R in
            try body(Tensor(buffer, shape: Dims(shape)))
        }
    }
}

extension Array: TensorSource where Element: TensorElement {
    public func withTensor<R>(_ body: (Tensor) throws(Failure) -> R) throws(Failure) -> R {
        try withUnsafeBufferPointer { (buffer) throws(Failure) -> R in try body(Tensor(buffer, shape: [count])) }
    }
}

/// Calls `body` with views of all sources.
func withTensors<R>(_ sources: (any TensorSource)?..., body: ([Tensor?]) throws(Failure) -> R) throws(Failure) -> R {
    func lend(_ tensors: [Tensor?]) throws(Failure) -> R {
        if tensors.count == sources.count { return try body(tensors) }
        guard let source = sources[tensors.count] else { return try lend(tensors + [nil]) }
        return try source.withTensor { (tensor) throws(Failure) -> R in try lend(tensors + [tensor]) }
    }
    return try lend([])
}

extension Tensor {
    /// A contiguous view of a buffer in row-major order.
    ///
    /// - Throws: `Failure` if the buffer has another number of elements than the shape.
    public init<E: TensorElement>(_ buffer: UnsafeMutableBufferPointer<E>, shape: Dims) throws(Failure) {
        let count = try places(Array(shape))
        guard buffer.count == count else {
            throw .shape("buffer: count is \(buffer.count), expected \(count) for shape \(shape)")
        }
        self.init(data: UnsafeMutableRawPointer(buffer.baseAddress), dtype: E.dtype, shape: shape)
    }

    /// The same of a buffer that cannot be written to: for inputs only.
    public init<E: TensorElement>(_ buffer: UnsafeBufferPointer<E>, shape: Dims) throws(Failure) {
        try self.init(UnsafeMutableBufferPointer(mutating: buffer), shape: shape)
    }
}
