/// Whether two tensors share memory, decided before anything is written.

extension Tensor {
    /// Addresses from the first byte to behind the last one, or nil if they do not fit an Int. Not for empty tensors.
    var byteSpan: (lower: Int, upper: Int)? {
        var before = 0, behind = 1  // elements from data to the first one, and to behind the last one
        for i in 0..<rank where shape[i] > 1 {
            let (reach, o1) = (shape[i] - 1).multipliedReportingOverflow(by: strides[i])
            let o2: Bool
            if reach < 0 { (before, o2) = before.addingReportingOverflow(reach) } else { (behind, o2) = behind.addingReportingOverflow(reach) }
            if o1 || o2 { return nil }
        }
        let (down, o1) = before.multipliedReportingOverflow(by: dtype.size)
        let (up, o2) = behind.multipliedReportingOverflow(by: dtype.size)
        let (lower, o3) = Int(bitPattern: data).addingReportingOverflow(down)
        let (upper, o4) = Int(bitPattern: data).addingReportingOverflow(up)
        return o1 || o2 || o3 || o4 ? nil : (lower, upper)
    }

    /// Same memory, element by element.
    func isSameView(as other: Tensor) -> Bool {
        guard data == other.data, dtype == other.dtype, shape == other.shape else { return false }
        return shape.indices.allSatisfy { shape[$0] <= 1 || strides[$0] == other.strides[$0] }
    }

    /// Whether an element of one may overlap an element of the other. Interleaved views of one buffer, such as the q, k
    /// and v parts of a packed projection, are told apart; where that is not possible the answer is true.
    func overlaps(_ other: Tensor) -> Bool {
        if isEmpty || other.isEmpty { return false }
        guard let a = byteSpan, let b = other.byteSpan else { return true }
        if a.upper <= b.lower || b.upper <= a.lower { return false }
        return Tensor.interleaved(Tensor.steps(self), a.lower, Tensor.steps(other), b.lower, dtype.size, other.dtype.size)
    }

    /// (count, bytes) of the dims with more than one element, the largest step first.
    private static func steps(_ t: Tensor) -> [(count: Int, bytes: Int)] {
        t.shape.indices.filter { t.shape[$0] > 1 && t.strides[$0] != 0 }
            .map { (t.shape[$0], abs(t.strides[$0] * t.dtype.size)) }
            .sorted { $0.bytes > $1.bytes }
    }

    /// Both step through memory with a common period: where all that is inside a period lies apart, nothing overlaps.
    private static func interleaved(_ a: [(count: Int, bytes: Int)], _ a0: Int, _ b: [(count: Int, bytes: Int)], _ b0: Int,
                                    _ aSize: Int, _ bSize: Int) -> Bool {
        for period in a.map(\.bytes) where b.contains(where: { $0.bytes == period }) {
            let aInner = a.filter { $0.bytes < period }.reduce(aSize) { $0 + ($1.count - 1) * $1.bytes }
            let bInner = b.filter { $0.bytes < period }.reduce(bSize) { $0 + ($1.count - 1) * $1.bytes }
            guard a.allSatisfy({ $0.bytes < period || $0.bytes % period == 0 }),
                  b.allSatisfy({ $0.bytes < period || $0.bytes % period == 0 }),
                  aInner <= period, bInner <= period else { continue }
            let shift = ((b0 - a0) % period + period) % period
            if shift >= aInner && shift + bInner <= period { return false }
        }
        return true
    }
}

/// An output of a call, to be held against everything else that the call touches before anything is written.
struct Output {
    private let name: StaticString
    private let tensor: Tensor
    private let span: (lower: Int, upper: Int)?

    /// nil without a tensor: an output that was not asked for.
    init?(_ name: StaticString, _ tensor: Tensor?) {
        guard let tensor else { return nil }
        self.name = name
        self.tensor = tensor
        span = tensor.isEmpty ? (0, 0) : tensor.byteSpan
    }

    private func overlaps(_ other: Tensor) -> Bool {
        if other.isEmpty { return false }
        guard let a = span, let b = other.byteSpan else { return true }
        return a.lower < b.upper && b.lower < a.upper && tensor.overlaps(other)
    }

    /// Inputs and other outputs must lie elsewhere.
    func expectApart(from other: Tensor?, _ otherName: @autoclosure () -> String) throws(Failure) {
        if let other, overlaps(other) {
            throw Failure(.aliasing, "\(name): overlaps \(otherName()), expected memory of its own")
        }
    }

    /// An input that is read where the output is written may be the very output (work in place).
    func expectApart(fromOrSameAs other: Tensor?, _ otherName: @autoclosure () -> String) throws(Failure) {
        if let other, overlaps(other), !tensor.isSameView(as: other) {
            throw Failure(.aliasing, "\(name): overlaps \(otherName()) without being the same view")
        }
    }
}
