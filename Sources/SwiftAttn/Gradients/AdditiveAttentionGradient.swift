/// Gradients of additive attention.

import CAttnKernels
import Glibc

/// Gradients of all tensors of `additiveAttention` but the mask, each as its tensor; what is nil is not computed.
public struct AdditiveGradients {
    public var query, key, value, queryWeight, keyWeight, scoreWeight: Tensor?

    public init(query: Tensor? = nil, key: Tensor? = nil, value: Tensor? = nil, queryWeight: Tensor? = nil,
                keyWeight: Tensor? = nil, scoreWeight: Tensor? = nil) {
        self.query = query
        self.key = key
        self.value = value
        self.queryWeight = queryWeight
        self.keyWeight = keyWeight
        self.scoreWeight = scoreWeight
    }

    var named: [(StaticString, Tensor?)] {
        [("dquery", query), ("dkey", key), ("dvalue", value), ("dw_query", queryWeight), ("dw_key", keyWeight),
         ("dv_score", scoreWeight)]
    }
}

/// With P the weights, s the scores, t = tanh(q + k) of the projected rows:
/// dvalue = Pᵀ · gradOut; ds = P (gradOut · valueᵀ - Σ_j P gradOut · valueᵀ); dq[i] = Σ_j ds v (1 - t²), dk[j] = Σ_i of the
/// same; dv_score = Σ ds t; and through the projections dquery = dq · w_query, dw_query = dqᵀ · query, and so on.
///
/// - Parameters:
///   - gradOut: (..., Tq, Dv) of query's dtype.
///   - inputs: as they were given to `additiveAttention`; query, key and value have the same leading dims.
/// - Throws: `Failure` for whatever does not fit; the gradients are then untouched.
///
/// P and ds are stored, (..., Tq, Tk) each; no (Tq, Tk, H) tensor is. The order of sums depends on shapes alone. Hidden keys
/// get no gradient, whatever they hold.
public func additiveAttentionBackward(gradOut: Tensor, _ inputs: AdditiveInputs, _ gradients: AdditiveGradients) throws(Failure) {
    let problem = try AdditiveProblem(inputs)
    try gradOut.checked("grad_out").expect(dtype: problem.dtype, "grad_out", as: "query")
    try gradOut.expect(shape: problem.shape(problem.columns), "grad_out")
    for (name, tensor) in inputs.named[0..<3] {
        guard tensor!.leading(2).shape == problem.leading else {
            throw .shape("\(name): leading dims are \(tensor!.leading(2).shape), expected \(problem.leading) of all three")
        }
    }
    for (i, (name, tensor)) in gradients.named.enumerated() {
        try tensor?.expectOutput(like: inputs.named[i].1!, name, as: inputs.named[i].0)
    }
    try expectApart(gradients.named, from: inputs.named + [("grad_out", gradOut)])

    let pool = Pool(), real = problem.dtype.computing
    let run = try AdditiveRun(problem, isExact: true, pool)
    let weights = try Value(real, problem.shape(problem.keys), in: pool)
    let scoreGradients = try Value(real, problem.shape(problem.keys), in: pool)
    let dq = try Value(real, run.query.sums.tensor.shape, in: pool), dk = try Value(real, run.key.sums.tensor.shape, in: pool)
    let shares = try Value(real, dq.tensor.shape, in: pool)
    let grad = try gradOut.asReals(pool)
    let padded = run.query.padded, batch = problem.leading.reduce(1, *)
    if !problem.leading.contains(0) && problem.queries > 0 {
        try run.forEachQuery { row in
            let keys = Int64(problem.keys), bytes = problem.keys * real.size
            let (values, step) = row.keyValues
            let ds = row.place(in: scoreGradients.tensor)
            memcpy(row.place(in: weights.tensor), row.weights, bytes)
            attn_additive_score_gradients(real.kernel, keys, Int64(problem.columns), row.scores, row.weights,
                                          row.place(in: grad.tensor), values, Int64(step), ds)
            var kernel = run.kernel(row.entry)
            attn_additive_gradient(&kernel, kernel.q.sums + row.query * padded * real.size, kernel.k.sums, keys, ds, 1,
                                   row.place(in: dq.tensor), row.place(in: shares.tensor))
        }
    }
    let keyRows = batch * problem.keys, queries = problem.queries, keys = problem.keys
    let cost = max(queries, 1) * max(padded / 8, 1)
    parallelFor(keyRows, grain: ElementCost.exponential.grain(keyRows, columns: cost, .float32)) { range in
        for number in range {
            let (entry, j) = number.quotientAndRemainder(dividingBy: keys)
            let ds = scoreGradients.tensor.pointer(byOffset: entry * queries * keys + j)
            var kernel = run.kernel(entry)
            attn_additive_gradient(&kernel, kernel.k.sums + j * padded * real.size, kernel.q.sums, Int64(queries), ds, Int64(keys),
                                   dk.tensor.pointer(byOffset: number * padded), nil)
        }
    }
    try project(dq, run.query, problem.hidden, dx: gradients.query, dweight: gradients.queryWeight, pool)
    try project(dk, run.key, problem.hidden, dx: gradients.key, dweight: gradients.keyWeight, pool)
    if let dvalue = gradients.value {
        let turned = weights.tensor.permuting(weights.tensor.dimsWithLast(problem.leading.count))
        try rounding(dvalue, pool) { (out) throws(Failure) in
            try Gemm(a: turned, b: grad.tensor, c: out).run()
        }
    }
    if let dscore = gradients.scoreWeight {
        let rows = batch * queries
        try rounding(dscore, pool) { (out) throws(Failure) in
            try sumRows(shares.tensor.reshaped([rows, problem.hidden], strides: [padded, 1]), out: out)
        }
    }
}

/// Gradients of x and of the weight from that of x · weightᵀ, whose rows are padded.
private func project(_ gradient: Value, _ projection: AdditiveProjection, _ hidden: Int, dx: Tensor?, dweight: Tensor?,
                     _ pool: Pool) throws(Failure) {
    var narrow = gradient.tensor
    narrow.shape[narrow.rank - 1] = hidden
    let x = projection.isOdd ? try cleared(projection.x.tensor, where: narrow, pool) : projection.x
    try rounding(dx, pool) { (dx) throws(Failure) in
        try rounding(dweight, pool) { (dweight) throws(Failure) in
            try linearBackward(gradOut: narrow, x.tensor, weight: projection.weight.tensor, dx: dx, dweight: dweight)
        }
    }
}

/// A copy of x with zeros for rows whose gradient is 0 throughout: 0 times what a hidden key holds may be NaN.
private func cleared(_ x: Tensor, where gradient: Tensor, _ pool: Pool) throws(Failure) -> Value {
    let copy = try Value(x.dtype, x.shape, in: pool)
    try copyConverting(x, to: copy.tensor)
    let walk = try RowWalk(x.leading(1).shape, [copy.tensor, gradient])
    let bytes = x.shape[x.rank - 1] * x.dtype.size, hidden = gradient.shape[x.rank - 1], isDouble = x.dtype == .float64
    walk.forEach(0..<walk.count) { _, at in
        let isZero = isDouble ? (0..<hidden).allSatisfy { at[1].load(fromByteOffset: 8 * $0, as: Double.self) == 0 }
            : (0..<hidden).allSatisfy { at[1].load(fromByteOffset: 4 * $0, as: Float.self) == 0 }
        if isZero { memset(at[0], 0, bytes) }
    }
    return copy
}

/// Calls `body` with `out`, or with memory in the computing type that is then rounded into it.
private func rounding(_ out: Tensor?, _ pool: Pool, _ body: (Tensor?) throws(Failure) -> Void) throws(Failure) {
    guard let out, out.dtype != out.dtype.computing else { return try body(out) }
    let wide = try Value(out.dtype.computing, out.shape, in: pool)
    try body(wide.tensor)
    try copyConverting(wide.tensor, to: out)
}

private func rounding(_ out: Tensor, _ pool: Pool, _ body: (Tensor) throws(Failure) -> Void) throws(Failure) {
    try rounding(Optional(out), pool) { (tensor) throws(Failure) in try body(tensor!) }
}
