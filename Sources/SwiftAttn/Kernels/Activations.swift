/// Element-wise activations, plain and gated.

import CAttnKernels

/// How gelu is computed.
public enum GELU: Int32, Sendable {
    /// x/2 * (1 + erf(x / sqrt 2))
    case exact = 0
    /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
    case tanh = 1

    var kernel: attn_activation { self == .exact ? ATTN_GELU : ATTN_GELU_TANH }
}

/// out = max(x, 0), NaN stays NaN; out as x, and may be x itself.
public func relu(_ x: Tensor, out: Tensor) throws(Failure) {
    try activate(ATTN_RELU, x, "x", out: out)
}

/// out = gelu(x); out as x, and may be x itself. Source: Hendrycks, Gimpel 2016.
public func gelu(_ x: Tensor, _ form: GELU = .exact, out: Tensor) throws(Failure) {
    try activate(form.kernel, x, "x", out: out)
}

/// out = x / (1 + exp(-x)); out as x, and may be x itself.
public func silu(_ x: Tensor, out: Tensor) throws(Failure) {
    try activate(ATTN_SILU, x, "x", out: out)
}

/// out = silu(gate) * up; all of one shape and dtype, and out may be either input. Source: Shazeer 2020.
public func swiglu(gate: Tensor, up: Tensor, out: Tensor) throws(Failure) {
    try activate(ATTN_SILU, gate, "gate", up: up, out: out)
}

/// out = gelu(gate) * up; all of one shape and dtype, and out may be either input. Source: Shazeer 2020.
public func geglu(gate: Tensor, up: Tensor, _ form: GELU = .exact, out: Tensor) throws(Failure) {
    try activate(form.kernel, gate, "gate", up: up, out: out)
}

private func activate(_ activation: attn_activation, _ x: Tensor, _ name: StaticString, up: Tensor? = nil,
                      out: Tensor) throws(Failure) {
    try Library.requireKernels()
    try x.checked(name).expectFloating(name)
    if let up {
        try up.checked("up").expect(dtype: x.dtype, "up", as: name)
        try up.expect(shape: x.shape, "up")
    }
    try out.expectOutput(like: x, "out", as: name)
    let written = Output("out", out)
    try written?.expectApart(fromOrSameAs: x, "\(name)")
    try written?.expectApart(fromOrSameAs: up, "up")
    if out.isEmpty { return }

    /* The order of elements does not matter: out's own makes the rows long and their elements neighbours. */
    let order = out.dimsByStep
    var tensors = [out.permuting(order), x.permuting(order)]
    if let up { tensors.append(up.permuting(order)) }
    var walk = try RowWalk(tensors[0].shape, tensors)
    let (columns, steps) = walk.takeColumns()
    let size = x.dtype.size, rows = walk
    let isOne = columns == 1  // side by side whatever the stride
    let layout = attn_rows(dtype: x.dtype.kernel, columns: 0, x_column: isOne ? 1 : Int64(steps[1] / size),
                           out_column: isOne ? 1 : Int64(steps[0] / size), stream: out.isStreamed(over: x, up))
    let outStep = steps[0], xStep = steps[1], upStep = up == nil ? 0 : steps[2], isGated = up != nil
    let upColumn = isOne ? 1 : Int64(upStep / size)
    let cost = activation == ATTN_RELU ? ElementCost.moved : .exponential
    let count = rows.count * columns, line = 64  // of the cache, in bytes at least: ranges begin as aligned as their tensors
    parallelFor(count, grain: cost.grain(count, columns: 1, x.dtype, unit: line)) { elements in
        let (firstRow, firstColumn) = elements.lowerBound.quotientAndRemainder(dividingBy: columns)
        let (lastRow, lastColumn) = (elements.upperBound - 1).quotientAndRemainder(dividingBy: columns)
        var piece = layout
        rows.forEach(firstRow..<lastRow + 1) { row, at in
            let from = row == firstRow ? firstColumn : 0
            piece.columns = Int64((row == lastRow ? lastColumn + 1 : columns) - from)
            let up = isGated ? UnsafeRawPointer(at[2] + from &* upStep) : nil
            attn_activation_row(&piece, activation, at[1] + from &* xStep, up, upColumn, at[0] + from &* outStep)
        }
        if layout.stream { attn_streamed() }
    }
}
