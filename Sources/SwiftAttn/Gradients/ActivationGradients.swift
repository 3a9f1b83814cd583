/// Gradients of the activations, plain and gated.

import CAttnKernels

/// dx = gradOut where x > 0 (or NaN), else 0. All of one shape and dtype; dx may be an input.
public func reluBackward(gradOut: Tensor, _ x: Tensor, dx: Tensor) throws(Failure) {
    try run(ATTN_RELU, gradOut, x, "x", nil, dx, "dx", nil)
}

/// dx = gradOut * gelu'(x). All of one shape and dtype; dx may be an input.
public func geluBackward(gradOut: Tensor, _ x: Tensor, _ form: GELU = .exact, dx: Tensor) throws(Failure) {
    try run(form.kernel, gradOut, x, "x", nil, dx, "dx", nil)
}

/// dx = gradOut * s (1 + x (1 - s)), s = 1 / (1 + exp(-x)). All of one shape and dtype; dx may be an input.
public func siluBackward(gradOut: Tensor, _ x: Tensor, dx: Tensor) throws(Failure) {
    try run(ATTN_SILU, gradOut, x, "x", nil, dx, "dx", nil)
}

/// dgate = gradOut * up * silu'(gate), dup = gradOut * silu(gate). All of one shape and dtype; outputs may be inputs, but not
/// one another, and one that is nil is not computed.
public func swigluBackward(gradOut: Tensor, gate: Tensor, up: Tensor, dgate: Tensor? = nil, dup: Tensor? = nil) throws(Failure) {
    try run(ATTN_SILU, gradOut, gate, "gate", up, dgate, "dgate", dup)
}

/// dgate = gradOut * up * gelu'(gate), dup = gradOut * gelu(gate); otherwise as `swigluBackward`.
public func gegluBackward(gradOut: Tensor, gate: Tensor, up: Tensor, _ form: GELU = .exact, dgate: Tensor? = nil,
                          dup: Tensor? = nil) throws(Failure) {
    try run(form.kernel, gradOut, gate, "gate", up, dgate, "dgate", dup)
}

/// dx = gradOut * activation'(x), for whichever a linear layer has fused.
func activationBackward(_ activation: Activation, gradOut: Tensor, _ x: Tensor, dx: Tensor) throws(Failure) {
    try run(activation.kernel, gradOut, x, "pre_activation", nil, dx, "dx", nil)
}

private func run(_ activation: attn_activation, _ gradOut: Tensor, _ x: Tensor, _ name: StaticString, _ up: Tensor?,
                 _ dx: Tensor?, _ dxName: StaticString, _ dup: Tensor?) throws(Failure) {
    try Library.requireKernels()
    try x.checked(name).expectFloating(name)
    for (other, tensor) in [("grad_out", gradOut), ("up", up)] as [(StaticString, Tensor?)] {
        try tensor?.checked(other).expect(dtype: x.dtype, other, as: name)
        try tensor?.expect(shape: x.shape, other)
    }
    try dx?.expectOutput(like: x, dxName, as: name)
    try dup?.expectOutput(like: x, "dup", as: name)
    for output in [Output(dxName, dx), Output("dup", dup)] {
        try output?.expectApart(fromOrSameAs: x, "\(name)")
        try output?.expectApart(fromOrSameAs: gradOut, "grad_out")
        try output?.expectApart(fromOrSameAs: up, "up")
    }
    try Output("dup", dup)?.expectApart(from: dx, "\(dxName)")
    guard let first = dx ?? dup, !x.isEmpty else { return }

    /* As in the forward: an output's own order makes the rows long and their elements neighbours. */
    let order = first.dimsByStep
    let given = [x, gradOut, up, dx, dup]
    let tensors = given.compactMap { $0?.permuting(order) }
    var walk = try RowWalk(tensors[0].shape, tensors)
    let (columns, steps) = walk.takeColumns()
    let rows = walk, size = x.dtype.size
    var places: [Int?] = []
    for tensor in given { places.append(tensor == nil ? nil : places.compactMap { $0 }.count) }
    let place = places
    let count = rows.count * columns, line = 64, stream = up == nil && first.isStreamed(over: x, gradOut)
    let cost = activation == ATTN_RELU ? ElementCost.normalized : .exponential
    parallelFor(count, grain: cost.grain(count, columns: 2, x.dtype, unit: line)) { elements in
        let (firstRow, firstColumn) = elements.lowerBound.quotientAndRemainder(dividingBy: columns)
        let (lastRow, lastColumn) = (elements.upperBound - 1).quotientAndRemainder(dividingBy: columns)
        rows.forEach(firstRow..<lastRow + 1) { row, at in
            let from = row == firstRow ? firstColumn : 0
            func operand(_ i: Int) -> attn_operand {
                guard let i = place[i] else { return attn_operand() }
                return attn_operand(data: at[i] + from &* steps[i], column: columns == 1 ? 1 : Int64(steps[i] / size))
            }
            var piece = attn_activation_gradient(
                dtype: x.dtype.kernel, activation: activation, columns: Int64((row == lastRow ? lastColumn + 1 : columns) - from),
                x: operand(0), up: operand(2), grad: operand(1), dx: operand(3), dup: operand(4), stream: stream)
            attn_activation_gradient_row(&piece)
        }
        if stream { attn_streamed() }
    }
}
