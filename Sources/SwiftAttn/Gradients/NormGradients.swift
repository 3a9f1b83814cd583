/// Gradients of layer_norm and rms_norm.

import CAttnKernels

/// With h = (x - mean) / sqrt(var + eps) and w = gradOut * weight, over the last dim:
/// dx = (w - mean(w) - h mean(w h)) / sqrt(var + eps); dweight = Σ gradOut h and dbias = Σ gradOut over the rows.
///
/// - Parameters:
///   - gradOut: as x.
///   - x: (..., N), floating, as it was given to `layerNorm`, with the same weight and eps.
///   - dx: as x, written; may be x or gradOut.
///   - dweight, dbias: (N,) of x's dtype or float32 (float64 of float64), written.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
///
/// An output that is nil is not computed. The order of sums over rows depends on their number alone.
public func layerNormBackward(gradOut: Tensor, _ x: Tensor, weight: Tensor? = nil, eps: Double = 1e-5, dx: Tensor? = nil,
                              dweight: Tensor? = nil, dbias: Tensor? = nil) throws(Failure) {
    try run(gradOut, x, weight, eps, centred: true, dx, dweight, dbias)
}

/// The same without the mean, which is taken as 0, and without a bias.
public func rmsNormBackward(gradOut: Tensor, _ x: Tensor, weight: Tensor? = nil, eps: Double = 1e-6, dx: Tensor? = nil,
                            dweight: Tensor? = nil) throws(Failure) {
    try run(gradOut, x, weight, eps, centred: false, dx, dweight, nil)
}

private func run(_ gradOut: Tensor, _ x: Tensor, _ weight: Tensor?, _ eps: Double, centred: Bool, _ dx: Tensor?,
                 _ dweight: Tensor?, _ dbias: Tensor?) throws(Failure) {
    try Library.requireKernels()
    try x.checked("x").expect(rank: 1...Dims.capacity, "x")
    try x.expectFloating("x")
    try gradOut.checked("grad_out").expect(dtype: x.dtype, "grad_out", as: "x")
    try gradOut.expect(shape: x.shape, "grad_out")
    let columns = x.shape[x.rank - 1]
    try weight?.expectParameter("weight", of: x)
    guard eps >= 0, eps.isFinite else { throw .argument("eps: expected a finite number of at least 0, got \(eps)") }
    try dx?.expectOutput(like: x, "dx", as: "x")
    try dweight?.expectSum("dweight", columns, of: x)
    try dbias?.expectSum("dbias", columns, of: x)
    try expectApart([("dx", dx), ("dweight", dweight), ("dbias", dbias)], from: [("weight", weight)])
    try expectApart([("dweight", dweight), ("dbias", dbias)], from: [("x", x), ("grad_out", gradOut)])
    try Output("dx", dx)?.expectApart(fromOrSameAs: x, "x")
    try Output("dx", dx)?.expectApart(fromOrSameAs: gradOut, "grad_out")
    if columns == 0 { return }

    let count = x.isEmpty ? 0 : x.shape.reduce(1, *) / columns
    try RowSums.with(rows: dweight == nil && dbias == nil ? 0 : count, columns: columns, kinds: 2, x.dtype) { (sums) throws(Failure) in
        if count > 0 {
            let norm = Norms(x: x, gradOut: gradOut, dx: dx, weight: weight, eps: eps, isCentred: centred, hasWeights: dweight != nil,
                             hasBiases: dbias != nil)
            try norm.run(sums)
        }
        if let dweight { sums.store(kind: 0, dweight) }
        if let dbias { sums.store(kind: 1, dbias) }
    }
}

private struct Norms {
    let x, gradOut: Tensor
    let dx, weight: Tensor?
    let eps: Double
    let isCentred, hasWeights, hasBiases: Bool

    /// All rows, those of a chunk one after the other: into dx, and added to the sums.
    func run(_ sums: RowSums) throws(Failure) {
        let rows = GradientRows([x, gradOut] + (dx.map { [$0] } ?? []))
        let walk = try RowWalk(rows.leading, rows.tensors)
        let chunks = (walk.count + RowSums.chunk - 1) / RowSums.chunk
        let grain = ElementCost.normalized.grain(chunks, columns: 2 * RowSums.chunk * rows.columns, x.dtype)
        let ranges = max(chunks / grain, 1), isConverted = weight?.hasReals(of: x.dtype) == false
        try withRowScratch((isConverted ? 1 : 0) + 4 * ranges, rows.columns, x.dtype) { scratch in
            let stream = rows.isDirect && dx?.isStreamed(over: x, gradOut, from: GradientRows.streamedBytes) == true
            let shape = attn_rows(dtype: x.dtype.kernel, columns: Int64(rows.columns), x_column: 1, out_column: 1, stream: stream)
            let norm = attn_norm(shape: shape, centred: isCentred, eps: eps,
                                 weight: weight?.reals(of: x.dtype, into: scratch.row(0)), bias: nil)
            parallelFor(chunks, grain: grain) { range in
                let own = (isConverted ? 1 : 0) + 4 * (range.lowerBound / grain)
                let weights = hasWeights ? scratch.cleared(own + 2) : nil, biases = hasBiases ? scratch.cleared(own + 3) : nil
                withUnsafePointer(to: norm) { norm in
                    for chunk in range {
                        /* Eight rows at a time, which loses fewer digits than 64 one after the other. */
                        let all = RowSums.rows(chunk, of: walk.count)
                        for first in stride(from: all.lowerBound, to: all.upperBound, by: 8) {
                            rows.forEach(first..<min(first + 8, all.upperBound), of: walk, scratch, own) {
                                attn_norm_gradients(norm, $0, weights, biases)
                            }
                            sums.add(weights, to: chunk, kind: 0)
                            sums.add(biases, to: chunk, kind: 1)
                        }
                    }
                }
                if stream { attn_streamed() }
            }
        }
    }
}
