/// Tensors of integers as arrays: lengths, offsets, indices.

extension Tensor {
    /// The elements of a (n,) tensor of int32 or int64.
    package func integers(_ name: StaticString) throws(Failure) -> [Int] {
        guard dtype == .int32 || dtype == .int64 else {
            throw .dtype("\(name): dtype is \(dtype), expected int32 or int64")
        }
        try checked(name).expect(rank: 1...1, name)
        let count = shape[0]
        try requireMemory(for: count, of: Int.self)
        return (0..<count).map { i in
            let p = pointer(byOffset: i &* strides[0])
            return dtype == .int64 ? Int(p.load(as: Int64.self)) : Int(p.load(as: Int32.self))
        }
    }

    /// The elements of a (count,) tensor of int32 or int64, all within `range`.
    func integers(_ name: StaticString, count: Int, in range: ClosedRange<Int>) throws(Failure) -> [Int] {
        guard dtype == .int32 || dtype == .int64 else {
            throw .dtype("\(name): dtype is \(dtype), expected int32 or int64")
        }
        try checked(name).expect(shape: [count], name)
        let result = try integers(name)
        for i in result.indices where !range.contains(result[i]) {
            throw .argument("\(name): entry \(i) is \(result[i]), expected \(range.lowerBound) to \(range.upperBound)")
        }
        return result
    }

    /// An output of int32 or int64.
    func expectIntegers(_ name: StaticString, rank: Int) throws(Failure) {
        guard dtype == .int32 || dtype == .int64 else {
            throw .dtype("\(name): dtype is \(dtype), expected int32 or int64")
        }
        try expect(rank: rank...rank, name)
        _ = try checkedOutput(name)
    }

    func store(_ number: Int, byOffset elements: Int) {
        let place = pointer(byOffset: elements)
        if dtype == .int64 {
            place.storeBytes(of: Int64(number), as: Int64.self)
        } else {
            place.storeBytes(of: Int32(truncatingIfNeeded: number), as: Int32.self)
        }
    }
}
