/// The gradients of an attention: checked against its inputs, and placed for the kernels. The rest of a backward's problem is
/// the forward's.

import CAttnKernels

/// A class, because every problem has a place for it and forwards would copy its kilobyte about.
final class AttentionGradients {
    let outGradient: Tensor
    let dq, dk, dv, dBias, dSinks: Tensor?

    private var description = attn_backward()
    private var sequences: [attn_sequence_gradients] = []
    private var groupStarts: [UnsafeMutableRawPointer] = []
    private var groups: [[Int64]] = []
    /// Gradients of inputs that were broadcast over the batch: computed for each entry, then summed.
    private var broadcast: [(full: Tensor, sum: Tensor)] = []
    private var memory: [Memory] = []

    init(outGradient: Tensor, dq: Tensor?, dk: Tensor?, dv: Tensor?, dBias: Tensor? = nil, dSinks: Tensor?) {
        (self.outGradient, self.dq, self.dk, self.dv, self.dBias, self.dSinks) = (outGradient, dq, dk, dv, dBias, dSinks)
    }

    var outputs: [Output?] {
        [Output("dq", dq), Output("dk", dk), Output("dv", dv), Output("dbias", dBias), Output("dsinks", dSinks)]
    }

    /// Shapes and dtypes are those of the inputs; no output overlaps an input or another output.
    func check(_ query: Tensor, _ key: Tensor, _ value: Tensor, _ out: Tensor, _ lse: Tensor?,
               _ options: AttentionOptions) throws(Failure) {
        try outGradient.expect(dtype: out.dtype, "grad_out", as: "out")
        try outGradient.expect(shape: out.shape, "grad_out")
        try outGradient.check("grad_out")
        try dq?.expectOutput(like: query, "dq", as: "query")
        try dk?.expectOutput(like: key, "dk", as: "key")
        try dv?.expectOutput(like: value, "dv", as: "value")
        if let dBias {
            guard let mask = options.mask, mask.dtype != .bool else {
                throw .argument("dbias: expected NULL without a float attn_mask")
            }
            try dBias.expectOutput(like: mask, "dbias", as: "attn_mask")
        }
        if let dSinks {
            guard let sinks = options.sinks else { throw .argument("dsinks: expected NULL without sinks") }
            try dSinks.expectOutput(like: sinks, "dsinks", as: "sinks")
        }
        let outputs = outputs
        let tensors: [(Tensor?, String)] = [(dq, "dq"), (dk, "dk"), (dv, "dv"), (dBias, "dbias"), (dSinks, "dsinks")]
        for (i, output) in outputs.enumerated() {
            try output?.expectApart(from: query, key, value, options)
            try output?.expectApart(from: outGradient, "grad_out")
            try output?.expectApart(from: out, "out")
            try output?.expectApart(from: lse, "lse")
            for (tensor, name) in tensors[(i + 1)...] { try output?.expectApart(from: tensor, name) }
        }
    }
}

// MARK: Places

extension AttentionGradients {
    /// Of padded batches: (..., H, T, D), `headless` without the heads; scores (Hq, Tq, Tk).
    func place(leading: Dims, headless: Bool, scores: Dims) throws(Failure) {
        let batch = leading.reduce(1, *)
        try requireMemory(for: batch, of: attn_sequence_gradients.self)
        sequences = [attn_sequence_gradients](repeating: attn_sequence_gradients(), count: batch)
        for b in 0..<batch { sequences[b].first_row = Int64(b * scores[0] * scores[1]) }
        description.row_count = Int64(batch * scores[0] * scores[1])
        func whole(_ tensor: Tensor) -> Tensor { headless ? tensor.insertingDim(at: 0) : tensor }

        let dOut = whole(outGradient)
        description.d_o = dOut.kernelStrides
        forEachOffset(leading, dOut.leading(3).strides) {
            sequences[$0].d_o = UnsafeRawPointer(dOut.pointer(byOffset: $1))
        }
        let wanted: [(Tensor?, WritableKeyPath<attn_backward, attn_gradient>,
                      WritableKeyPath<attn_sequence_gradients, UnsafeMutableRawPointer?>)] =
            [(dq, \.dq, \.dq), (dk, \.dk, \.dk), (dv, \.dv, \.dv)]
        for (tensor, gradient, pointer) in wanted {
            guard let tensor else { continue }
            let placed = try full(whole(tensor), leading)
            description[keyPath: gradient] = attn_gradient(dtype: placed.dtype.kernel, strides: placed.kernelStrides)
            forEachOffset(leading, placed.leading(3).strides) { sequences[$0][keyPath: pointer] = placed.pointer(byOffset: $1) }
        }
        guard let dBias else { return }
        let spread = try dBias.spreadAsMask(leading: leading, batch: batch, scores: scores)
        description.d_bias = attn_gradient(dtype: dBias.dtype.kernel, strides: spread.strides)
        description.bias_has_heads = spread.strides.head != 0
        description.bias_has_rows = spread.strides.row != 0
        description.bias_has_keys = spread.strides.element != 0
        var group: [Int: Int] = [:]
        forEachOffset(spread.batch.shape, spread.batch.strides) { b, offset in
            if group[offset] == nil {
                group[offset] = groups.count
                groups.append([])
                groupStarts.append(dBias.pointer(byOffset: offset))
            }
            groups[group[offset]!].append(Int64(b))
        }
    }

    /// A gradient that has all leading dims: itself, or memory for the entries that are to be summed.
    private func full(_ tensor: Tensor, _ leading: Dims) throws(Failure) -> Tensor {
        if tensor.leading(3).shape == leading { return tensor }
        var shape = leading
        var count = 1
        for dim in tensor.shape.suffix(3) { shape.append(dim) }
        for dim in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: dim)
            guard !overflow else { throw Failure.outOfMemory }
            count = product
        }
        let memory = try Memory(count, of: tensor.dtype.computing)
        self.memory.append(memory)
        let whole = Tensor(data: memory.data, dtype: tensor.dtype.computing, shape: shape)
        broadcast.append((whole, tensor))
        return whole
    }

    /// Of packed sequences: (total, H, D).
    func place(queryStarts: [Int], keyStarts: [Int]) throws(Failure) {
        let batch = queryStarts.count - 1, heads = outGradient.shape[1]
        sequences = [attn_sequence_gradients](repeating: attn_sequence_gradients(), count: batch)
        description.d_o = outGradient.packedStrides
        if let dq { description.dq = attn_gradient(dtype: dq.dtype.kernel, strides: dq.packedStrides) }
        if let dk { description.dk = attn_gradient(dtype: dk.dtype.kernel, strides: dk.packedStrides) }
        if let dv { description.dv = attn_gradient(dtype: dv.dtype.kernel, strides: dv.packedStrides) }
        for b in 0..<batch {
            let row = queryStarts[b], key = keyStarts[b]
            sequences[b].d_o = UnsafeRawPointer(outGradient.pointer(byOffset: row &* outGradient.strides[0]))
            sequences[b].dq = dq?.pointer(byOffset: row &* dq!.strides[0])
            sequences[b].dk = dk?.pointer(byOffset: key &* dk!.strides[0])
            sequences[b].dv = dv?.pointer(byOffset: key &* dv!.strides[0])
            sequences[b].first_row = Int64(row * heads)
        }
        description.row_count = Int64(outGradient.shape[0] * heads)
    }
}

// MARK: Running

extension AttentionGradients {
    /// Calls `body` with the backward of a problem, whose pointers are valid until it returns; then fills in what the kernels
    /// leave to be finished.
    func withDescription(_ problem: UnsafePointer<attn_problem>, sinkSums: UnsafeMutablePointer<Double>?,
                         _ body: (UnsafePointer<attn_backward>) -> Bool) -> Bool {
        var description = description
        let members = groups.flatMap { $0 }
        return sequences.withUnsafeBufferPointer { sequences in
            members.withUnsafeBufferPointer { members in
                var first = 0
                let parts = groups.indices.map { g in
                    defer { first += groups[g].count }
                    return attn_bias_group(d_bias: groupStarts[g], sequences: members.baseAddress! + first,
                                           count: Int64(groups[g].count))
                }
                return parts.withUnsafeBufferPointer { parts in
                    description.problem = problem
                    description.gradients = sequences.baseAddress
                    description.wants_dq = dq != nil
                    description.wants_dk = dk != nil
                    description.wants_dv = dv != nil
                    description.bias_groups = parts.isEmpty ? nil : parts.baseAddress
                    description.bias_group_count = Int64(parts.count)
                    description.d_sinks = sinkSums
                    return body(&description)
                }
            }
        }
    }

    /// Sums the gradients of broadcast inputs over the entries, in their order, and writes those of the sinks.
    func finish(sinkSums: [Double]) throws(Failure) {
        for (full, sum) in broadcast {
            if full.dtype == .float64 { try reduce(Double.self, full, sum) } else { try reduce(Float.self, full, sum) }
        }
        if let dBias, groups.isEmpty { zero(dBias) } /* a batch without entries */
        guard let dSinks else { return }
        for h in sinkSums.indices {
            let place = dSinks.pointer(byOffset: h &* dSinks.strides[0])
            if dSinks.dtype == .float64 {
                place.storeBytes(of: sinkSums[h], as: Double.self)
            } else {
                place.storeBytes(of: Float(sinkSums[h]), as: Float.self)
            }
        }
    }

    private func zero(_ tensor: Tensor) {
        let row = [UInt8](repeating: 0, count: tensor.dtype.size)
        forEachOffset(tensor.shape, tensor.strides) { _, offset in
            tensor.pointer(byOffset: offset).copyMemory(from: row, byteCount: row.count)
        }
    }

    /// sum[...] = the sum of full over the leading dims that sum lacks or has with size 1. full is dense.
    private func reduce<R: Real>(_ type: R.Type, _ full: Tensor, _ sum: Tensor) throws(Failure) {
        if sum.isEmpty { return }
        let leading = full.leading(3).shape, own = sum.leading(3)
        let skipped = leading.count - own.shape.count
        var kept = Dims(repeating: 0, count: leading.count), keptShape = Dims(repeating: 1, count: leading.count)
        var summedShape = leading
        for i in own.shape.indices where own.shape[i] != 1 {
            keptShape[i + skipped] = own.shape[i]
            kept[i + skipped] = own.strides[i]
            summedShape[i + skipped] = 1
        }
        let heads = sum.shape[sum.rank - 3], rows = sum.shape[sum.rank - 2], columns = sum.shape[sum.rank - 1]
        let strides = sum.kernelStrides
        var starts: [Int] = [], sources: [Int] = [], entries: [Int] = []
        forEachOffset(keptShape, kept) { starts.append($1) }
        forEachOffset(keptShape, full.leading(3).strides) { sources.append($1) }
        forEachOffset(summedShape, full.leading(3).strides) { entries.append($1) }
        parallelFor(starts.count * heads * rows, grain: max(65536 / (columns * max(entries.count, 1)), 1)) { range in
            withUnsafeTemporaryAllocation(of: R.self, capacity: columns) { line in
                for i in range {
                    let row = i % rows, head = i / rows % heads, entry = i / rows / heads
                    line.update(repeating: 0)
                    for offset in entries {
                        let at = sources[entry] + offset + (head * rows + row) * columns
                        let from = full.pointer(byOffset: at).assumingMemoryBound(to: R.self)
                        for d in 0..<columns { line[d] += from[d] }
                    }
                    let out = starts[entry] + head * Int(strides.head) + row * Int(strides.row)
                    attn_store_row(sum.dtype.kernel, line.baseAddress, Int64(columns), sum.pointer(byOffset: out), strides.element)
                }
            }
        }
    }
}

/// Memory of the library's own, freed with the last reference.
private final class Memory {
    let data: UnsafeMutableRawPointer

    init(_ count: Int, of dtype: DType) throws(Failure) {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: dtype.size)
        guard !overflow, let data = attn_allocate(max(bytes, 1)) else { throw Failure.outOfMemory }
        self.data = data
    }

    deinit { attn_free(data) }
}
