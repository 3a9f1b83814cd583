/// Tokens drawn from logits, and the distribution that they are drawn from.

import CAttnKernels

/// One token for each row of logits. Penalties of previous tokens (repetition, presence, frequency), temperature, top-k,
/// top-p and min-p are applied in this order, each to what the one before it left, as Hugging Face's generate does.
///
/// - Parameters:
///   - logits: (..., V), floating.
///   - out: (...) int32 or int64, written.
/// - Throws: `Failure` for whatever does not fit, for a row that holds NaN, and for one without a token to draw (V = 0, or
///   all logits -inf); out is then untouched.
///
/// Logits of +inf share all the probability. A row's token depends on the row, its number, the options and the seed alone.
public func sample(_ logits: Tensor, options: SamplingOptions = SamplingOptions(), out: Tensor) throws(Failure) {
    let problem = try SamplingProblem(logits, options)
    try out.expect(shape: logits.leading(1).shape, "out")
    try out.expectIndices("out")
    try out.checkOutput("out")
    try Output("out", out)?.expectApart(from: logits, "logits")
    try Output("out", out)?.expectApart(from: options.previousTokens, "previous_tokens")
    if out.isEmpty { return }
    try problem.checkRows()
    let generator = Philox(seed: options.seed)
    let walk = try RowWalk(out.shape, [out])
    try withScratch(of: Int.self, walk.count) { tokens throws(Failure) in
        try problem.forEachRow { row, filter in
            let u = options.temperature == 0 ? 0 : generator.uniform(row: UInt64(row), draw: options.draw)
            tokens[row] = filter.token(at: u)
        }
        walk.forEach(0..<walk.count) { row, at in
            if out.dtype == .int64 {
                at[0].storeBytes(of: Int64(tokens[row]), as: Int64.self)
            } else {
                at[0].storeBytes(of: Int32(truncatingIfNeeded: tokens[row]), as: Int32.self)
            }
        }
    }
}

/// What `sample` draws from: the probabilities of all tokens, 0 for those that were taken away.
///
/// - Parameters:
///   - logits: (..., V), floating; arguments and failures as `sample`'s.
///   - out: as logits, written.
public func samplingDistribution(_ logits: Tensor, options: SamplingOptions = SamplingOptions(), out: Tensor) throws(Failure) {
    let problem = try SamplingProblem(logits, options)
    try out.expectOutput(like: logits, "out", as: "logits")
    try Output("out", out)?.expectApart(from: logits, "logits")
    try Output("out", out)?.expectApart(from: options.previousTokens, "previous_tokens")
    if out.isEmpty { return }
    try problem.checkRows()
    let walk = try RowWalk(out.leading(1).shape, [out])
    let dtype = out.dtype, stride = out.strides[out.rank - 1]
    try problem.forEachRow { row, filter in
        walk.forEach(row..<row + 1) { _, at in filter.store(dtype, at[0], stride: stride) }
    }
}

/// Logits and options that fit each other.
private struct SamplingProblem {
    private let logits: Tensor
    private let tokens: Tensor?
    private let options: SamplingOptions
    private var columns: Int { logits.shape[logits.rank - 1] }

    init(_ logits: Tensor, _ options: SamplingOptions) throws(Failure) {
        try Library.requireKernels()
        try logits.checked("logits").expect(rank: 1...Dims.capacity, "logits")
        try logits.expectFloating("logits")
        try options.check()
        self.logits = logits
        self.options = options
        let leading = logits.leading(1).shape, vocabulary = logits.shape[logits.rank - 1]
        guard vocabulary > 0 || leading.contains(0) else {
            throw .shape("logits: shape is \(logits.shape), expected a token in each row")
        }
        guard let previous = options.previousTokens else {
            tokens = nil
            return
        }
        try previous.checked("previous_tokens").expect(rank: 1...Dims.capacity, "previous_tokens")
        try previous.expectIndices("previous_tokens")
        try previous.checkIndices("previous_tokens", -1..<vocabulary)
        let wide = try previous.broadcast(to: leading, kept: 1, "previous_tokens")
        tokens = wide.isEmpty || !options.hasPenalties ? nil : wide
    }

    /// Rows with a NaN, or without a logit above -inf, have nothing to draw from.
    func checkRows() throws(Failure) {
        let walk = try RowWalk(logits.leading(1).shape, [logits])
        let shape = attn_rows(logits, logits, columns: columns, stream: false)
        let grain = ElementCost.exponential.grain(walk.count, columns: columns, logits.dtype)
        var wrong: (row: Int, what: StaticString)?
        try withRowScratch(shape.isContiguous ? 0 : max(walk.count / grain, 1), columns, logits.dtype) { scratch throws(Failure) in
            try withScratch(of: Double.self, walk.count) { sums throws(Failure) in
                parallelFor(walk.count, grain: grain) { rows in
                    let own = scratch.row(rows.lowerBound / grain)
                    withUnsafePointer(to: shape) { shape in
                        walk.forEach(rows) { row, at in
                            var result = attn_exp_sum()
                            attn_exp_sum_row(shape, at[0], own, &result)
                            sums[row] = result.sum
                        }
                    }
                }
                let row = (0..<walk.count).first { !(sums[$0] > 0) }
                wrong = row.map { ($0, sums[$0].isNaN ? "holds NaN" : "is -inf alone") }
            }
        }
        if let wrong { throw .argument("logits: row \(wrong.row) \(wrong.what), expected a token to draw") }
    }

    /// Calls `body` with each row filtered, on the threads.
    func forEachRow(_ body: (_ row: Int, _ filter: TokenFilter) -> Void) throws(Failure) {
        let walk = try RowWalk(logits.leading(1).shape, [logits] + (tokens.map { [$0] } ?? []))
        let columns = columns, count = tokens?.shape[logits.rank - 1] ?? 0
        let step = tokens.map { $0.strides[logits.rank - 1] &* $0.dtype.size } ?? 0, isWide = tokens?.dtype == .int64
        let dtype = logits.dtype.kernel, stride = Int64(logits.strides[logits.rank - 1])
        let grain = ElementCost.exponential.grain(walk.count, columns: columns, logits.dtype), ranges = max(walk.count / grain, 1)
        /* For each range: two rows in the computing type, a number for each token of the vocabulary, and the previous ones. */
        try withRowScratch(2 * ranges, columns, logits.dtype) { reals throws(Failure) in
            try withScratch(of: Int.self, columns + count, times: ranges) { numbers throws(Failure) in
                parallelFor(walk.count, grain: grain) { rows in
                    let range = rows.lowerBound / grain, own = numbers + range * (columns + count)
                    let logits = reals.row(2 * range)!, shares = reals.row(2 * range + 1)!
                    walk.forEach(rows) { row, at in
                        attn_load_row(dtype, at[0], stride, Int64(columns), logits)
                        var filter = TokenFilter(logits, columns, self.logits.dtype, shares: shares, list: own)
                        for i in 0..<count { own[columns + i] = loadIndex(isWide, at[1] + i &* step) }
                        filter.apply(options, previous: UnsafeMutableBufferPointer(start: own + columns, count: count))
                        body(row, filter)
                    }
                }
            }
        }
    }
}
