/// Rotary positions of heads, with the tables that they need.

/// Rotates heads of one dim by their positions; its tables grow with the longest sequence met.
final class Rotation: @unchecked Sendable {
    private let pairs: Int
    private let dtype: DType
    private let lock = Lock()
    private var tables: (cos: Parameter, sin: Parameter)?

    init(dim: Int, dtype: DType) {
        pairs = dim / 2
        self.dtype = dtype.computing
    }

    /// In place: heads (B, H, T, D), row t at position `first` + t; or packed (rows, H, D) with the offsets `starts`, counted
    /// from each start. Back turns the other way, as gradients do.
    func turn(_ heads: Tensor, from first: Int = 0, starts: Tensor? = nil, isBack: Bool = false) throws(Failure) {
        guard let starts else {
            let length = heads.shape[2]
            let (cos, sin) = try tables(length: first + length)
            let rows = first..<first + length
            return try turn(heads, cos[rows].tensor, sin[rows].tensor, nil, isBack)
        }
        let offsets = try starts.cumulative("cu_seqlens", total: heads.shape[0])
        var positions: [Int64] = []
        positions.reserveCapacity(heads.shape[0])
        var longest = 0
        for (start, end) in zip(offsets, offsets.dropFirst()) {
            longest = max(longest, end - start)
            for position in 0..<Int64(end - start) { positions.append(position) }
        }
        let (cos, sin) = try tables(length: longest)
        let byHead = heads.permuting([1, 0, 2])
        try positions.withTensor { (positions) throws(Failure) in
            try turn(byHead, cos.tensor, sin.tensor, positions, isBack)
        }
    }

    private func turn(_ heads: Tensor, _ cos: Tensor, _ sin: Tensor, _ positions: Tensor?, _ isBack: Bool) throws(Failure) {
        if isBack {
            try rotaryEmbeddingBackward(gradOut: heads, cos: cos, sin: sin, positions: positions, dx: heads)
        } else {
            try rotaryEmbedding(heads, cos: cos, sin: sin, positions: positions, out: heads)
        }
    }

    /// Of at least so many rows.
    private func tables(length: Int) throws(Failure) -> (cos: Parameter, sin: Parameter) {
        try lock.locked { () throws(Failure) in
            if let tables, tables.cos.tensor.shape[0] >= length { return tables }
            let rows = max(length, 2 * (tables?.cos.tensor.shape[0] ?? 0))
            let fresh = (cos: try Parameter(dtype, [rows, pairs]), sin: try Parameter(dtype, [rows, pairs]))
            try rotaryTables(cos: fresh.cos.tensor, sin: fresh.sin.tensor)
            tables = fresh
            return fresh
        }
    }
}
