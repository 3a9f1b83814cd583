/// Additive attention (Bahdanau).

import CAttnKernels

/// score[i,j] = v_score · tanh(query[i] · w_queryᵀ + key[j] · w_keyᵀ) + mask[i,j]; weights = softmax(score) over the visible
/// keys; out = weights · value. No (Tq, Tk, H) tensor is stored.
///
/// - Parameters:
///   - inputs: leading dims broadcast.
///   - out: (..., Tq, Dv) of query's dtype, written.
///   - weights: (..., Tq, Tk) of query's dtype or float32, written.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
///
/// A row that sees no key: out 0, weights 0. What a hidden key or its value holds does not matter. A row's result depends on
/// that row and the keys alone. Source: Bahdanau et al. 2015.
public func additiveAttention(_ inputs: AdditiveInputs, out: Tensor, weights: Tensor? = nil) throws(Failure) {
    let problem = try AdditiveProblem(inputs)
    try out.expect(dtype: problem.dtype, "out", as: "query")
    try out.checkedOutput("out").expect(shape: problem.shape(problem.columns), "out")
    if let weights {
        try weights.checkedOutput("weights").expect(shape: problem.shape(problem.keys), "weights")
        guard weights.dtype == problem.dtype || weights.dtype == problem.dtype.computing else {
            throw .dtype("weights: dtype is \(weights.dtype), expected \(problem.dtype) or \(problem.dtype.computing)")
        }
    }
    try expectApart([("out", out), ("weights", weights)], from: inputs.named)
    if problem.leading.contains(0) || problem.queries == 0 { return }

    let pool = Pool()
    let run = try AdditiveRun(problem, pool)
    try run.forEachQuery { row in
        if let weights, problem.keys > 0 {
            attn_store_row(weights.dtype.kernel, row.weights, Int64(problem.keys), row.place(in: weights),
                           Int64(weights.strides[weights.rank - 1]))
        }
        if problem.columns == 0 { return }
        row.attend()
        attn_store_row(out.dtype.kernel, row.out, Int64(problem.columns), row.place(in: out), Int64(out.strides[out.rank - 1]))
    }
}

/// Projections of a problem, and the walk over its queries.
struct AdditiveRun {
    let problem: AdditiveProblem
    let query, key: AdditiveProjection
    let value: Value
    private let score: Value
    private let mask: Tensor?
    private let queryEntries, keyEntries: [Int]
    private let isExact: Bool

    /// isExact: to the last digits, which gradients show; takes twice as long.
    init(_ problem: AdditiveProblem, isExact: Bool = false, _ pool: Pool) throws(Failure) {
        self.isExact = isExact
        self.problem = problem
        query = try AdditiveProjection(problem.inputs.query, problem.inputs.queryWeight, pool)
        key = try AdditiveProjection(problem.inputs.key, problem.inputs.keyWeight, pool)
        score = try problem.paddedScoreWeight(query.padded, pool)
        value = try problem.inputs.value.asReals(pool)
        mask = try problem.mask()
        queryEntries = try problem.entries(of: problem.inputs.query)
        keyEntries = try problem.entries(of: problem.inputs.key)
    }

    /// What the kernels want of one entry of the leading dims.
    func kernel(_ entry: Int) -> attn_additive {
        attn_additive(dtype: problem.dtype.computing.kernel, mask_dtype: mask?.dtype.kernel ?? ATTN_BOOL,
                      keys: Int64(problem.keys), padded: Int64(query.padded), v: UnsafeRawPointer(score.tensor.data), exact: isExact,
                      q: query.rows(queryEntries[entry]), k: key.rows(keyEntries[entry]))
    }

    /// One query with its scores and weights, valid until `body` returns.
    struct Row {
        let entry, query: Int
        let scores, weights, out: UnsafeMutableRawPointer
        fileprivate let run: AdditiveRun
        fileprivate let values: UnsafeRawPointer

        /// The values of this entry's keys, and how many reals apart they are.
        var keyValues: (rows: UnsafeRawPointer, step: Int) { (values, run.value.tensor.strides[run.value.tensor.rank - 2]) }

        /// out = weights · value.
        func attend() {
            let problem = run.problem, (rows, step) = keyValues
            attn_additive_values(problem.dtype.computing.kernel, Int64(problem.keys), Int64(problem.columns), scores, weights,
                                 rows, Int64(step), out)
        }

        /// This query's row of a tensor (..., Tq, columns).
        func place(in tensor: Tensor) -> UnsafeMutableRawPointer { AdditiveRun.place(tensor, entry, query) }
    }

    /// Row `row` of entry `entry`.
    private static func place(_ tensor: Tensor, _ entry: Int, _ row: Int) -> UnsafeMutableRawPointer {
        var rest = entry, offset = row &* tensor.strides[tensor.rank - 2]
        for dim in (0..<tensor.rank - 2).reversed() {
            let index: Int
            (rest, index) = rest.quotientAndRemainder(dividingBy: tensor.shape[dim])
            offset = offset &+ index &* tensor.strides[dim]
        }
        return tensor.pointer(byOffset: offset)
    }

    /// Calls `body` with every query of every entry, on the threads.
    func forEachQuery(_ body: (Row) -> Void) throws(Failure) {
        let keys = problem.keys, queries = problem.queries, dtype = problem.dtype.computing
        var wide = problem.leading
        wide.append(keys)
        wide.append(problem.columns)
        let values = try value.tensor.broadcast(toShape: wide, "value"), mask = mask
        let count = problem.leading.reduce(queries, *)
        let cost = max(keys, 1).multipliedReportingOverflow(by: max(query.padded / 8, 1))
        let grain = ElementCost.exponential.grain(count, columns: cost.overflow ? Int.max : cost.partialValue, .float32)
        /* Scores and weights of a query, and its out, for each range. */
        try withRowScratch(3 * max(count / grain, 1), max(keys, problem.columns, 1), dtype) { scratch in
            parallelFor(count, grain: grain) { range in
                let own = 3 * (range.lowerBound / grain)
                for number in range {
                    let (entry, query) = number.quotientAndRemainder(dividingBy: queries)
                    let row = Row(entry: entry, query: query, scores: scratch.row(own)!, weights: scratch.row(own + 1)!,
                                  out: scratch.row(own + 2)!, run: self,
                                  values: UnsafeRawPointer(AdditiveRun.place(values, entry, 0)))
                    var kernel = kernel(entry)
                    attn_additive_scores(&kernel, Int64(query), mask.map { UnsafeRawPointer(row.place(in: $0)) },
                                         Int64(mask?.strides[mask!.rank - 1] ?? 0), row.scores)
                    if keys > 0 {
                        var shape = attn_rows(dtype: dtype.kernel, columns: Int64(keys), x_column: 1, out_column: 1, stream: false)
                        attn_softmax_row(&shape, row.scores, row.weights, nil)
                    }
                    body(row)
                }
            }
        }
    }
}
