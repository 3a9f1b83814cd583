/// The mean cross-entropy of rows of logits, and its gradient in the same pass.

import CAttnKernels
import Glibc

/// loss = mean over rows that count of -Σ_v q[v] ln softmax(logits)[v], q = (1 - s) · [v = target] + s / V.
///
/// - Parameters:
///   - logits: (..., V), floating.
///   - targets: (...) int32 or int64, each 0 <= target < V or `ignoreIndex`; rows with the latter do not count.
///   - labelSmoothing: s, 0 to 1.
///   - loss: rank 0, float32 (float64 with float64 logits), written. Where no row counts it is 0.
/// - Throws: `Failure` for whatever does not fit; loss is then untouched.
///
/// The order of the sum over rows depends on their number alone.
public func crossEntropy(_ logits: Tensor, targets: Tensor, ignoreIndex: Int = -100, labelSmoothing: Double = 0,
                         loss: Tensor) throws(Failure) {
    try run(logits, targets, ignoreIndex, labelSmoothing, 1, loss, nil)
}

/// The gradient of the logits: gradLoss · (softmax(logits) - q) / rows that count, 0 in rows that do not; and the loss, if it
/// is asked for. Arguments as `crossEntropy`'s; gradLogits is as logits, and may be logits itself.
public func crossEntropyBackward(gradLoss: Double = 1, _ logits: Tensor, targets: Tensor, ignoreIndex: Int = -100,
                                 labelSmoothing: Double = 0, loss: Tensor? = nil, gradLogits: Tensor) throws(Failure) {
    guard gradLoss.isFinite else { throw .argument("grad_loss: expected a finite number, got \(gradLoss)") }
    try run(logits, targets, ignoreIndex, labelSmoothing, gradLoss, loss, gradLogits)
}

private func run(_ logits: Tensor, _ targets: Tensor, _ ignored: Int, _ smoothing: Double, _ gradLoss: Double, _ loss: Tensor?,
                 _ gradient: Tensor?) throws(Failure) {
    try Library.requireKernels()
    try logits.checked("logits").expect(rank: 1...Dims.capacity, "logits")
    try logits.expectFloating("logits")
    let columns = logits.shape[logits.rank - 1]
    try targets.checked("targets").expect(shape: logits.leading(1).shape, "targets")
    try targets.expectIndices("targets")
    guard smoothing >= 0, smoothing <= 1 else { throw .argument("label_smoothing: expected 0 to 1, got \(smoothing)") }
    try targets.checkIndices("targets", 0..<columns, or: ignored)
    if let loss {
        try loss.expect(rank: 0...0, "loss")
        guard loss.dtype == logits.dtype.computing else {
            throw .dtype("loss: dtype is \(loss.dtype), expected \(logits.dtype.computing)")
        }
        try loss.checkOutput("loss")
        try Output("loss", loss)?.expectApart(from: logits, "logits")
        try Output("loss", loss)?.expectApart(from: targets, "targets")
    }
    if let gradient {
        try gradient.expectOutput(like: logits, "grad_logits", as: "logits")
        try Output("grad_logits", gradient)?.expectApart(fromOrSameAs: logits, "logits")
        try Output("grad_logits", gradient)?.expectApart(from: targets, "targets")
        try Output("grad_logits", gradient)?.expectApart(from: loss, "loss")
    }

    var total = 0.0
    if !logits.isEmpty {
        let walk = try RowWalk(targets.shape, [targets, logits] + (gradient.map { [$0] } ?? []))
        try withScratch(of: Double.self, walk.count) { losses throws(Failure) in
            let counted = count(walk, targets, ignored)
            let layout = attn_loss(shape: attn_rows(logits, gradient ?? logits, columns: columns, stream: false),
                                   smoothing: smoothing, scale: gradLoss / Double(max(counted, 1)))
            try each(walk, layout, targets, ignored, logits.dtype, hasGradient: gradient != nil, losses)
            for row in 0..<walk.count { total += losses[row] }
            total /= Double(max(counted, 1))
        }
    }
    guard let loss else { return }
    if loss.dtype == .float64 {
        loss.data!.storeBytes(of: total, as: Double.self)
    } else {
        loss.data!.storeBytes(of: Float(total), as: Float.self)
    }
}

private func count(_ walk: RowWalk, _ targets: Tensor, _ ignored: Int) -> Int {
    let isWide = targets.dtype == .int64
    var counted = 0
    walk.forEach(0..<walk.count) { _, at in counted += loadIndex(isWide, at[0]) == ignored ? 0 : 1 }
    return counted
}

private func each(_ walk: RowWalk, _ layout: attn_loss, _ targets: Tensor, _ ignored: Int, _ dtype: DType, hasGradient: Bool,
                  _ losses: UnsafeMutablePointer<Double>) throws(Failure) {
    let columns = Int(layout.shape.columns), isWide = targets.dtype == .int64
    let grain = ElementCost.exponential.grain(walk.count, columns: columns, dtype)
    let isStrided = !layout.shape.isContiguous
    try withRowScratch(isStrided || hasGradient ? max(walk.count / grain, 1) : 0, columns, dtype) { scratch in
        parallelFor(walk.count, grain: grain) { rows in
            let own = scratch.row(rows.lowerBound / grain)
            withUnsafePointer(to: layout) { layout in
                walk.forEach(rows) { row, at in
                    let target = loadIndex(isWide, at[0])
                    let gradient = hasGradient ? at[2] : nil
                    losses[row] = 0
                    if target != ignored {
                        attn_loss_row(layout, at[1], Int64(target), gradient, own, losses + row)
                    } else if let gradient {
                        memset(own!, 0, columns * dtype.computing.size)
                        attn_store_row(dtype.kernel, own, Int64(columns), gradient, layout.pointee.shape.out_column)
                    }
                }
            }
        }
    }
}
