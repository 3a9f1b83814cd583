/// Tensors of numbers: of rows, positions, tokens, classes.

/// The int64 or int32 at an address.
@inline(__always)
func loadIndex(_ isWide: Bool, _ p: UnsafeRawPointer) -> Int {
    isWide ? Int(p.load(as: Int64.self)) : Int(p.load(as: Int32.self))
}

extension Tensor {
    func expectIndices(_ name: StaticString) throws(Failure) {
        guard dtype == .int32 || dtype == .int64 else {
            throw .dtype("\(name): dtype is \(dtype), expected int32 or int64")
        }
    }

    /// All entries lie within `range`, or are `other`.
    func checkIndices(_ name: StaticString, _ range: Range<Int>, or other: Int? = nil) throws(Failure) {
        if isEmpty { return }
        let walk = try RowWalk(shape, [self])
        let step = walk.step(0), isWide = dtype == .int64
        let first = range.lowerBound, size = UInt(bitPattern: range.upperBound &- range.lowerBound), spare = other ?? first
        @inline(__always) func isRight(_ number: Int) -> Bool {
            UInt(bitPattern: number &- first) < size || (other != nil && number == spare)  // what is below it wraps to huge
        }
        var wrong: (entry: Int, number: Int)?
        walk.forEachRun(0..<walk.count) { entry, count, at in
            var areRight = true
            for i in 0..<count { areRight = isRight(loadIndex(isWide, at[0] + i &* step)) && areRight }
            if areRight || wrong != nil { return }
            let i = (0..<count).first { !isRight(loadIndex(isWide, at[0] + $0 &* step)) }!
            wrong = (entry + i, loadIndex(isWide, at[0] + i &* step))
        }
        if let wrong {
            let or = other.map { " or \($0)" } ?? ""
            throw .argument("\(name): entry \(wrong.entry) is \(wrong.number), expected \(range.lowerBound) <= id < \(range.upperBound)\(or)")
        }
    }
}
