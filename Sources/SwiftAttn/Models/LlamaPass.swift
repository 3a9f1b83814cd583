/// One run of tokens through the layers of a Llama-family decoder.

import CAttnKernels
import Glibc

/// Which cache entries the rows of a pass belong to.
enum PassRows {
    /// All of them one entry, in order.
    case run(entry: Int)
    /// A token for each of some entries, in ascending order.
    case step(entries: [Int])
}

/// What a pass may leave besides the final states: of interest to tests, pictures, and nobody in a hurry.
struct PassTrace {
    /// (layers, heads, rows, keys) float32.
    var attention: Tensor?
    /// (layers + 1, rows, width) float32: the embedding, then the residual stream behind each layer.
    var states: Tensor?
}

/// Room for the rows of a pass, taken anew when more are wanted.
struct PassBuffers {
    private(set) var rows = 0
    private var memory: [FloatBuffer] = []

    var x: UnsafeMutablePointer<Float> { memory[0].pointer }
    var normed: UnsafeMutablePointer<Float> { memory[1].pointer }
    var q: UnsafeMutablePointer<Float> { memory[2].pointer }
    var k: UnsafeMutablePointer<Float> { memory[3].pointer }
    var v: UnsafeMutablePointer<Float> { memory[4].pointer }
    var attended: UnsafeMutablePointer<Float> { memory[5].pointer }
    var gate: UnsafeMutablePointer<Float> { memory[6].pointer }
    var up: UnsafeMutablePointer<Float> { memory[7].pointer }
    var cosines: UnsafeMutablePointer<Float> { memory[8].pointer }
    var sines: UnsafeMutablePointer<Float> { memory[9].pointer }

    mutating func reserve(_ wanted: Int, _ config: LlamaConfig) throws(Failure) {
        if wanted <= rows { return }
        let q = config.heads * config.headDim, kv = config.kvHeads * config.headDim, pairs = config.rotaryDim / 2
        var fresh: [FloatBuffer] = []
        for width in [config.width, config.width, q, kv, kv, q, config.hidden, config.hidden, pairs, pairs] {
            try fresh.append(FloatBuffer(wanted * width))
        }
        memory = fresh
        rows = wanted
    }
}

struct LlamaPass {
    let config: LlamaConfig
    let weights: LlamaWeights
    let rotary: (inverse: [Double], attention: Double)
    /// Keys that a token sees, itself included; nil is all.
    let window: Int?
    let buffers: PassBuffers
    /// One for each layer.
    let caches: [KVCache]
    let rows: PassRows
    /// Of each row.
    let positions: [Int]
    /// Whether quantised weights see x in 8 bits.
    let isCoarse: Bool
    var trace = PassTrace()

    private var count: Int { positions.count }

    /// Appends the tokens to the caches and leaves the normalised final states in `buffers.normed`, (rows, width).
    func run(_ ids: [Int]) throws(Failure) {
        embed(ids)
        rotate()
        for n in weights.layers.indices {
            keepState(n)
            try attend(n)
            try feedForward(weights.layers[n])
        }
        keepState(weights.layers.count)
        normalise(weights.norm)
    }

    /// x = the embedding's rows
    private func embed(_ ids: [Int]) {
        let width = config.width
        parallelFor(count, grain: max(elementsPerRange / width, 1)) { range in
            for row in range { weights.embedding.loadRow(ids[row], into: buffers.x + row * width) }
        }
    }

    /// Cosines and sines of the rows' positions.
    private func rotate() {
        let pairs = rotary.inverse.count
        parallelFor(count, grain: max(512 / max(pairs, 1), 1)) { range in
            for row in range {
                for i in 0..<pairs {
                    let angle = Double(positions[row]) * rotary.inverse[i]
                    buffers.cosines[row * pairs + i] = Float(rotary.attention * cos(angle))
                    buffers.sines[row * pairs + i] = Float(rotary.attention * sin(angle))
                }
            }
        }
    }

    private func keepState(_ n: Int) {
        guard let states = trace.states else { return }
        states.pointer(byOffset: n * states.strides[0]).copyMemory(from: buffers.x, byteCount: count * config.width * 4)
    }

    /// normed = RMSNorm(x)
    private func normalise(_ weight: FloatBuffer) {
        let width = config.width
        let shape = attn_rows(dtype: ATTN_F32, columns: Int64(width), x_column: 1, out_column: 1, stream: false)
        let norm = attn_norm(shape: shape, centred: false, eps: config.normEps, weight: weight.pointer, bias: nil)
        parallelFor(count, grain: ElementCost.normalized.grain(count, columns: width, .float32)) { range in
            withUnsafePointer(to: norm) { norm in
                for row in range { attn_norm_row(norm, buffers.x + row * width, buffers.normed + row * width, nil) }
            }
        }
    }

    // MARK: Attention

    /// x += O(attention(rope(Q normed), rope(K normed), V normed))
    private func attend(_ n: Int) throws(Failure) {
        let layer = weights.layers[n]
        normalise(layer.attentionNorm)
        try LinearCall.run([LinearCall(weight: layer.q, out: buffers.q, bias: layer.biases[0]?.pointer),
                            LinearCall(weight: layer.k, out: buffers.k, bias: layer.biases[1]?.pointer),
                            LinearCall(weight: layer.v, out: buffers.v, bias: layer.biases[2]?.pointer)],
                           buffers.normed, rows: count, coarse: isCoarse)
        turn(buffers.q, heads: config.heads)
        turn(buffers.k, heads: config.kvHeads)
        try attendOverCache(n)
        try LinearCall.run([LinearCall(weight: layer.o, out: buffers.x, residual: buffers.x)], buffers.attended, rows: count, coarse: isCoarse)
    }

    /// The rotation of every head by its row's position, in place.
    private func turn(_ x: UnsafeMutablePointer<Float>, heads: Int) {
        let dim = config.headDim, pairs = rotary.inverse.count
        if pairs == 0 { return }
        let shape = attn_rows(dtype: ATTN_F32, columns: Int64(dim), x_column: 1, out_column: 1, stream: false)
        let rotation = attn_rotary(shape: shape, pairs: Int64(pairs), neighbours: config.rotaryPairing == .neighbours, back: false)
        parallelFor(count, grain: ElementCost.moved.grain(count, columns: heads * dim, .float32)) { range in
            withUnsafePointer(to: rotation) { rotation in
                for row in range {
                    for head in 0..<heads {
                        let at = x + (row * heads + head) * dim
                        attn_rotary_row(rotation, at, buffers.cosines + row * pairs, buffers.sines + row * pairs, at)
                    }
                }
            }
        }
    }

    /// attended = attention of the rows over the cache, to which their keys and values are added first.
    private func attendOverCache(_ n: Int) throws(Failure) {
        let cache = caches[n]
        var options = AttentionOptions()
        options.causal = .lowerRight
        options.windowLeft = window.map { $0 - 1 }
        let weights = trace.attention.map { all in
            Tensor(data: all.pointer(byOffset: n * all.strides[0]), dtype: .float32, shape: Dims([1] + all.shape.dropFirst()))
        }
        let q = config.heads * config.headDim, kv = config.kvHeads * config.headDim
        switch rows {
        case .run(let entry):
            try attend(entry, of: cache, row: 0, count: count, options, weights)
        case .step(let entries) where entries.count == cache.batch:
            try cache.append(key: heads(buffers.k, config.kvHeads, entries: count, stride: kv, tokens: 1),
                             value: heads(buffers.v, config.kvHeads, entries: count, stride: kv, tokens: 1))
            try AttentionProblem(
                query: heads(buffers.q, config.heads, entries: count, stride: q, tokens: 1), stored: StoredKeys(cache),
                options: options, out: heads(buffers.attended, config.heads, entries: count, stride: q, tokens: 1),
                lse: nil, weights: nil).run()
        case .step(let entries):
            for (row, entry) in entries.enumerated() { try attend(entry, of: cache, row: row, count: 1, options, nil) }
        }
    }

    /// The same of `count` rows from `row` on, all of one entry.
    private func attend(_ entry: Int, of cache: KVCache, row: Int, count: Int, _ options: AttentionOptions,
                        _ weights: Tensor?) throws(Failure) {
        let q = row * config.heads * config.headDim, kv = row * config.kvHeads * config.headDim
        try cache.append(key: heads(buffers.k + kv, config.kvHeads, entries: cache.batch, stride: 0, tokens: count),
                         value: heads(buffers.v + kv, config.kvHeads, entries: cache.batch, stride: 0, tokens: count),
                         lengths: (0..<cache.batch).map { $0 == entry ? count : 0 })
        try AttentionProblem(
            query: heads(buffers.q + q, config.heads, entries: 1, stride: 0, tokens: count),
            stored: StoredKeys(cache, entry: entry), options: options,
            out: heads(buffers.attended + q, config.heads, entries: 1, stride: 0, tokens: count), lse: nil, weights: weights).run()
    }

    /// Rows (tokens, heads, D) of each entry as (entries, heads, tokens, D).
    private func heads(_ data: UnsafeMutablePointer<Float>, _ heads: Int, entries: Int, stride: Int, tokens: Int) -> Tensor {
        let dim = config.headDim
        return Tensor(data: data, dtype: .float32, shape: [entries, heads, tokens, dim], strides: [stride, dim, heads * dim, 1])
    }

    // MARK: Feed-forward

    /// x += down(silu(gate normed) * up normed)
    private func feedForward(_ layer: LlamaLayer) throws(Failure) {
        normalise(layer.feedForwardNorm)
        try LinearCall.run([LinearCall(weight: layer.gate, out: buffers.gate), LinearCall(weight: layer.up, out: buffers.up)],
                           buffers.normed, rows: count, coarse: isCoarse)
        let hidden = config.hidden
        let shape = attn_rows(dtype: ATTN_F32, columns: Int64(hidden), x_column: 1, out_column: 1, stream: false)
        parallelFor(count, grain: ElementCost.exponential.grain(count, columns: hidden, .float32)) { range in
            withUnsafePointer(to: shape) { shape in
                for row in range {
                    let at = buffers.gate + row * hidden
                    attn_activation_row(shape, ATTN_SILU, at, buffers.up + row * hidden, 1, at)
                }
            }
        }
        try LinearCall.run([LinearCall(weight: layer.down, out: buffers.x, residual: buffers.x)], buffers.gate, rows: count, coarse: isCoarse)
    }
}
