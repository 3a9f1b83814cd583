/// Borrowed strided arrays: what every operation takes.

/// A view of memory that somebody else owns: element `[i, j, ...]` lies at
/// `data + dtype.size * (i * strides[0] + j * strides[1] + ...)`. Strides count elements; they may be zero (inputs only) or
/// negative.
///
/// The memory must stay valid and, for outputs, unshared during the call it is passed to.
public struct Tensor: @unchecked Sendable {
    public var data: UnsafeMutableRawPointer?
    public var dtype: DType
    public var shape: Dims
    public var strides: Dims

    public init(data: UnsafeMutableRawPointer?, dtype: DType, shape: Dims, strides: Dims) {
        precondition(shape.count == strides.count, "shape and strides differ in rank")
        self.data = data
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
    }

    /// Contiguous in row-major order.
    public init(data: UnsafeMutableRawPointer?, dtype: DType, shape: Dims) {
        var strides = shape
        var step = 1
        for i in shape.indices.reversed() {
            strides[i] = step
            step = step &* Swift.max(shape[i], 1)
        }
        self.init(data: data, dtype: dtype, shape: shape, strides: strides)
    }

    public var rank: Int { shape.count }
    public var isEmpty: Bool {
        for i in 0..<rank where shape[i] == 0 { return true }
        return false
    }

    /// The product of the dims.
    var elementCount: Int {
        var count = 1
        for i in 0..<rank { count *= shape[i] }
        return count
    }

    /// The address of the element that many elements on. An empty tensor's address may be NULL and is never read; its place
    /// is taken by one that arithmetic is allowed on.
    func pointer(byOffset elements: Int) -> UnsafeMutableRawPointer {
        (data ?? Tensor.nowhere) + elements &* dtype.size
    }

    nonisolated(unsafe) private static let nowhere = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)

    /// Shape and strides without the last `count` dims.
    func leading(_ count: Int) -> (shape: Dims, strides: Dims) {
        (shape.droppingLast(count), strides.droppingLast(count))
    }
}

// MARK: Checks that every operation shares

extension Tensor {
    /// The elements can be reached: sizes not negative, addresses that do not overflow, data aligned.
    func check(_ name: StaticString) throws(Failure) {
        for i in 0..<rank where shape[i] < 0 {
            throw .shape("\(name): dim \(i) is \(shape[i]), expected at least 0")
        }
        if isEmpty { return }
        guard let data else { throw Failure(.nullPointer, "\(name): data is NULL, expected \(shape) elements") }
        guard Int(bitPattern: data) % dtype.size == 0 else {
            throw .argument("\(name): data is not aligned to \(dtype.size) bytes, got \(data)")
        }
        guard let span = byteSpan else {
            throw .shape("\(name): shape \(shape) with strides \(strides) reaches beyond the address space")
        }
        guard span.lower >= 0 else {
            throw .shape("\(name): shape \(shape) with strides \(strides) reaches below address 0")
        }
    }

    /// This view, for what else is expected of it.
    @inline(__always)
    func checked(_ name: StaticString) throws(Failure) -> Tensor {
        try check(name)
        return self
    }

    /// Whether each dim steps beyond all that the ones behind it cover, as in row-major order.
    private var stepsGrow: Bool {
        var covered = 1
        var i = rank
        while i > 0 {
            i -= 1
            if shape[i] <= 1 { continue }
            let step = abs(strides[i])
            if step < covered { return false }
            covered += (shape[i] - 1) * step
        }
        return true
    }

    /// An output: also no two elements in one place. Seen from the smallest stride up, each dim must step beyond all that the
    /// ones before it cover.
    func checkOutput(_ name: StaticString) throws(Failure) {
        try check(name)
        if isEmpty || stepsGrow { return }
        var covered = 1
        for i in shape.indices.filter({ shape[$0] > 1 }).sorted(by: { abs(strides[$0]) < abs(strides[$1]) }) {
            guard abs(strides[i]) >= covered else {
                throw .shape("\(name): stride of dim \(i) is \(strides[i]), an output needs a place for each element")
            }
            covered += (shape[i] - 1) * abs(strides[i])
        }
    }

    /// This view, for what else is expected of it.
    @inline(__always)
    func checkedOutput(_ name: StaticString) throws(Failure) -> Tensor {
        try checkOutput(name)
        return self
    }

    func expectFloating(_ name: StaticString) throws(Failure) {
        guard dtype.isFloating else {
            throw .dtype("\(name): dtype is \(dtype), expected float32, float16, bfloat16 or float64")
        }
    }

    func expect(dtype wanted: DType, _ name: StaticString, as other: StaticString) throws(Failure) {
        guard dtype == wanted else { throw .dtype("\(name): dtype is \(dtype), \(other) has \(wanted)") }
    }

    func expect(shape wanted: Dims, _ name: StaticString) throws(Failure) {
        guard shape == wanted else { throw .shape("\(name): shape is \(shape), expected \(wanted)") }
    }

    func expect(rank wanted: ClosedRange<Int>, _ name: StaticString) throws(Failure) {
        guard wanted.contains(rank) else {
            let range = wanted.count == 1 ? "\(wanted.lowerBound)" : "\(wanted.lowerBound) to \(wanted.upperBound)"
            throw .shape("\(name): rank is \(rank), expected \(range)")
        }
    }

    /// Strides of the dims before the `kept` last ones, as they step through `leading`: 0 for the missing and 1-sized ones.
    func leadingStrides(in leading: Dims, kept: Int, _ name: StaticString) throws(Failure) -> Dims {
        var result = Dims(repeating: 0, count: leading.count)
        let own = rank - kept, skipped = leading.count - own
        for i in 0..<Swift.max(own, 0) {
            let target = i + skipped
            guard target >= 0, shape[i] == leading[target] || shape[i] == 1 else {
                throw .shape("\(name): shape \(shape) does not broadcast to leading dims \(leading)")
            }
            result[target] = shape[i] == 1 ? 0 : strides[i]
        }
        return result
    }

    /// This view with the given leading shape, its missing and 1-sized leading dims repeated by stride 0.
    /// `kept` trailing dims stay as they are.
    func broadcast(to leading: Dims, kept: Int, _ name: StaticString) throws(Failure) -> Tensor {
        var newShape = leading
        var newStrides = try leadingStrides(in: leading, kept: kept, name)
        for i in Swift.max(rank - kept, 0)..<rank {
            newShape.append(shape[i])
            newStrides.append(strides[i])
        }
        return Tensor(data: data, dtype: dtype, shape: newShape, strides: newStrides)
    }
}

/// The shape that leading dims broadcast to, NumPy's rule.
func broadcastShapes(_ a: Dims, _ b: Dims, _ name: StaticString) throws(Failure) -> Dims {
    if a == b { return a }
    let count = max(a.count, b.count)
    var result = Dims(repeating: 1, count: count)
    for i in 0..<count {
        let x = i < count - a.count ? 1 : a[i - (count - a.count)]
        let y = i < count - b.count ? 1 : b[i - (count - b.count)]
        guard x == y || x == 1 || y == 1 else {
            throw .shape("\(name): leading dims are \(b), which do not broadcast with \(a)")
        }
        result[i] = x == 1 ? y : x
    }
    return result
}

/// Calls `body` with the running number and the element offset of every index of `shape` in row-major order.
@inline(__always)
func forEachOffset(_ shape: Dims, _ strides: Dims, _ body: (_ number: Int, _ offset: Int) -> Void) {
    var isSingle = true
    for i in 0..<shape.count {
        if shape[i] == 0 { return }
        if shape[i] != 1 { isSingle = false }
    }
    if isSingle { return body(0, 0) }
    var index = Dims(repeating: 0, count: shape.count)
    var offset = 0
    var number = 0
    while true {
        body(number, offset)
        number += 1
        var dim = shape.count - 1
        while dim >= 0 {
            index[dim] += 1
            offset &+= strides[dim]
            if index[dim] < shape[dim] { break }
            offset &-= strides[dim] &* shape[dim]
            index[dim] = 0
            dim -= 1
        }
        if dim < 0 { return }
    }
}

extension Tensor {
    /// The elements of a (count,) float32 or float64 tensor.
    public func doubles(_ name: StaticString) throws(Failure) -> [Double] {
        try checked(name).expect(rank: 1...1, name)
        guard dtype == .float32 || dtype == .float64 else {
            throw .dtype("\(name): dtype is \(dtype), expected float32 or float64")
        }
        try requireMemory(for: shape[0], of: Double.self)
        return (0..<shape[0]).map {
            let place = pointer(byOffset: $0 &* strides[0])
            return dtype == .float64 ? place.load(as: Double.self) : Double(place.load(as: Float.self))
        }
    }
}
