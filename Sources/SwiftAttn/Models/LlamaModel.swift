/// Llama-family decoders: weights, and the sequences that they are continuing.

import CAttnKernels
import Glibc

/// How a model is opened.
public struct ModelOptions: Sendable {
    public var storage = WeightStorage.stored
    /// Tokens that a sequence may have; nil is what the model was trained on.
    public var context: Int?
    /// Sequences that can be continued side by side.
    public var sequences = 1
    /// Tokens that a token sees, itself included; older ones are forgotten, so that a sequence has no end. nil: it sees all,
    /// and a sequence ends with the context.
    public var window: Int?
    /// Whether prefill rounds x as finely as everything else does. Else prompts of 128 tokens and more round it to 8 bits where
    /// the machine gains by it.
    public var hasExactPrefill = false
    /// Of the sequences' caches: float32, float16, bfloat16 or int8. Texts by themselves are read in float32.
    public var cacheDType = DType.float32

    public init() {}
}

/// A decoder with room for `sequences` sequences. Calls on one model run one after the other, from whatever thread.
public final class LlamaModel: @unchecked Sendable {
    public let config: LlamaConfig
    public let context, sequences: Int
    public let window: Int?
    private let hasExactPrefill: Bool
    private let cacheDType: DType
    private let weights: LlamaWeights
    private let rotary: (inverse: [Double], attention: Double)
    private var buffers = PassBuffers()
    private var logits: FloatBuffer?
    /// Of the sequences, one for each layer; taken with the first of their tokens.
    private var caches: [KVCache] = []
    /// Tokens that each sequence has had, forgotten ones included.
    private var positions: [Int]
    private let lock = Lock()

    /// Tokens that go through the layers at a time.
    private static let chunk = 512
    /// A prefill of fewer is exact anyway.
    private static let fewestCoarse = 128
    /// Rows whose logits are taken at a time where only what follows from them is kept.
    private static let logitRows = 64

    /// Opens a GGUF file.
    public convenience init(path: String, options: ModelOptions = ModelOptions()) throws(Failure) {
        try Library.requireKernels()
        let file = try GGUFFile(path: path)
        try self.init(LlamaConfig(file), GGUFWeights(file, storage: options.storage), .gguf, options)
    }

    /// Takes copies of tensors with Hugging Face's names.
    public convenience init(_ config: LlamaConfig, tensors: [String: Tensor], options: ModelOptions = ModelOptions()) throws(Failure) {
        try Library.requireKernels()
        for (name, tensor) in tensors {
            do throws(Failure) { _ = try tensor.checked("") } catch { throw Failure(error.status, name + error.message) }
        }
        try self.init(config.checked(), NamedTensors(tensors: tensors, storage: options.storage), .huggingFace, options)
    }

    private init(_ config: LlamaConfig, _ source: some WeightSource, _ names: LlamaWeights.Names,
                 _ options: ModelOptions) throws(Failure) {
        let context = options.context ?? config.context
        guard (1...1 << 28).contains(context) else { throw .argument("context: expected 1 to 2^28, got \(context)") }
        guard (1...1 << 16).contains(options.sequences) else {
            throw .argument("sequences: expected 1 to 65536, got \(options.sequences)")
        }
        if let window = options.window, !(1...context).contains(window) {
            throw .argument("window: expected 1 to \(context), the context, got \(window)")
        }
        try CacheMemory.check(options.cacheDType, "kv_dtype")
        self.config = config
        self.context = context
        sequences = options.sequences
        window = options.window
        hasExactPrefill = options.hasExactPrefill
        cacheDType = options.cacheDType
        weights = try LlamaWeights(config, from: source, names)
        rotary = try config.rotaryScaling.frequencies(dim: config.rotaryDim, length: context, base: config.rotaryBase)
        positions = [Int](repeating: 0, count: options.sequences)
    }
}

// MARK: Sequences

extension LlamaModel {
    /// Tokens of each sequence.
    public var lengths: [Int] { lock.locked { positions } }

    /// The same in out (sequences,) int64.
    public func lengths(into out: Tensor) throws(Failure) {
        guard out.dtype == .int64 else { throw .dtype("out: dtype is \(out.dtype), expected int64") }
        try out.checkedOutput("out").expect(shape: [sequences], "out")
        for (sequence, length) in lengths.enumerated() {
            out.pointer(byOffset: sequence &* out.strides[0]).storeBytes(of: Int64(length), as: Int64.self)
        }
    }

    /// Adds tokens to a sequence. `logits` (vocabulary,) float32: of what follows the last one.
    public func prefill(_ sequence: Int, _ ids: [Int], logits: Tensor? = nil) throws(Failure) {
        try lock.locked { () throws(Failure) in
            try check(sequence)
            try check(ids)
            guard !ids.isEmpty else { throw .shape("ids: is empty, expected at least 1 token") }
            try expect(logits, "logits", [config.vocabulary])
            try expectRoom(sequence, ids.count)
            try reserve()
            let before = positions[sequence]
            do throws(Failure) {
                var first = 0
                while first < ids.count {
                    let count = min(LlamaModel.chunk, ids.count - first)
                    try forget(sequence, for: count)
                    try pass(Array(ids[first..<first + count]), .run(entry: sequence), caches,
                             (0..<count).map { positions[sequence] + $0 },
                             isCoarse: !hasExactPrefill && ids.count >= LlamaModel.fewestCoarse)
                    positions[sequence] += count
                    first += count
                }
                if let logits { try takeLogits(row: (ids.count - 1) % LlamaModel.chunk, count: 1, into: logits) }
            } catch {
                if window == nil { try truncateEntry(sequence, to: before) }
                throw error
            }
        }
    }

    /// Adds a token to each sequence; -1 leaves one out. `logits` (sequences, vocabulary) float32; rows of sequences left out
    /// are 0.
    public func step(_ ids: [Int], logits: Tensor? = nil) throws(Failure) {
        try lock.locked { () throws(Failure) in
            guard ids.count == sequences else { throw .shape("ids: shape is (\(ids.count),), expected (\(sequences),)") }
            try check(ids, least: -1)
            try expect(logits, "logits", [sequences, config.vocabulary])
            let active = ids.indices.filter { ids[$0] >= 0 }
            for sequence in active { try expectRoom(sequence, 1) }
            try reserve()
            for sequence in active { try forget(sequence, for: 1) }
            if !active.isEmpty {
                try pass(active.map { ids[$0] }, .step(entries: active), caches, active.map { positions[$0] })
            }
            for sequence in active { positions[sequence] += 1 }
            if let logits { try takeLogits(of: active, into: logits) }
        }
    }

    /// Logits of the last pass' rows, each in its sequence's row of `out`; the other rows become 0.
    private func takeLogits(of active: [Int], into out: Tensor) throws(Failure) {
        let columns = config.vocabulary, bytes = columns * 4
        let place = { (row: Int) in out.pointer(byOffset: row * columns) }
        if !active.isEmpty { try takeLogits(row: 0, count: active.count, into: out) }
        for (row, sequence) in active.enumerated().reversed() where row != sequence { memcpy(place(sequence), place(row), bytes) }
        for sequence in Set(0..<sequences).subtracting(active) { memset(place(sequence), 0, bytes) }
    }

    /// Forgets all but the first `length` tokens of a sequence.
    public func truncate(_ sequence: Int, to length: Int) throws(Failure) {
        try lock.locked { () throws(Failure) in
            try check(sequence)
            guard (0...positions[sequence]).contains(length) else {
                throw .argument("length: expected 0 to \(positions[sequence]), the tokens of sequence \(sequence), got \(length)")
            }
            guard length == 0 || length == positions[sequence] || window == nil else {
                throw .argument("length: expected 0, a model with a window cannot go back, got \(length)")
            }
            try truncateEntry(sequence, to: length)
        }
    }

    private func truncateEntry(_ sequence: Int, to length: Int) throws(Failure) {
        if length != positions[sequence] || length == 0 {
            for cache in caches {
                var lengths = cache.lengths
                lengths[sequence] = min(lengths[sequence], length)
                try cache.truncate(to: lengths)
            }
        }
        positions[sequence] = length
    }

    private func check(_ sequence: Int) throws(Failure) {
        guard (0..<sequences).contains(sequence) else {
            throw .argument("sequence: expected 0 to \(sequences - 1), got \(sequence)")
        }
    }

    private func expectRoom(_ sequence: Int, _ count: Int) throws(Failure) {
        guard window == nil, positions[sequence] + count > context else { return }
        throw .argument("ids: sequence \(sequence) has \(positions[sequence]) tokens of at most \(context), \(count) more do not fit; "
            + "a larger context or a window would take them")
    }

    /// With a window: makes room for `count` more tokens, keeping those that the first of them sees.
    private func forget(_ sequence: Int, for count: Int) throws(Failure) {
        guard let window else { return }
        for cache in caches where cache.lengths[sequence] + count > cache.maxLength {
            cache.dropFirst(max(cache.lengths[sequence] - (window - 1), 0), of: sequence)
        }
    }

    /// The sequences' caches, once.
    private func reserve() throws(Failure) {
        guard caches.isEmpty else { return }
        caches = try newCaches(batch: sequences, maxLength: window.map { $0 - 1 + LlamaModel.chunk } ?? context, cacheDType)
    }

    private func newCaches(batch: Int, maxLength: Int, _ dtype: DType) throws(Failure) -> [KVCache] {
        var caches: [KVCache] = []
        for _ in 0..<config.layers {
            try caches.append(KVCache(batch: batch, kvHeads: config.kvHeads, maxLength: maxLength, headDim: config.headDim,
                                      dtype: dtype))
        }
        return caches
    }
}

// MARK: A text by itself

extension LlamaModel {
    /// (n, vocabulary) float32: logits of what follows each token of a text. The sequences are left alone.
    public func logits(of ids: [Int], out: Tensor) throws(Failure) {
        try lock.locked { () throws(Failure) in
            try expect(out, "logits", [ids.count, config.vocabulary])
            try read(ids) { (first, count) throws(Failure) in
                try takeLogits(row: 0, count: count, into: out.rows(first, count))
            }
        }
    }

    /// out[i] = ln p(ids[i + 1] | ids[0...i]), (n - 1,) float32.
    public func logProbabilities(of ids: [Int], out: Tensor) throws(Failure) {
        try lock.locked { () throws(Failure) in
            guard ids.count > 1 else { throw .shape("ids: has \(ids.count) tokens, expected at least 2") }
            try expect(out, "out", [ids.count - 1])
            let buffer = try logitBuffer()
            let block = Tensor(data: buffer.pointer, dtype: .float32, shape: [LlamaModel.logitRows, config.vocabulary])
            try read(ids) { (first, count) throws(Failure) in
                var row = 0
                while row < count {
                    let some = min(LlamaModel.logitRows, count - row)
                    try takeLogits(row: row, count: some, into: block.rows(0, some))
                    for i in 0..<some where first + row + i + 1 < ids.count {
                        let logits = UnsafeBufferPointer(start: buffer.pointer + i * config.vocabulary, count: config.vocabulary)
                        let at = out.pointer(byOffset: (first + row + i) &* out.strides[0])
                        at.storeBytes(of: logProbability(of: ids[first + row + i + 1], logits), as: Float.self)
                    }
                    row += some
                }
            }
        }
    }

    /// exp of the mean of -ln p(ids[i + 1] | ids[0...i]).
    public func perplexity(of ids: [Int]) throws(Failure) -> Double {
        let buffer = try FloatBuffer(max(ids.count - 1, 1))
        try logProbabilities(of: ids, out: Tensor(data: buffer.pointer, dtype: .float32, shape: [max(ids.count - 1, 0)]))
        let sum = (0..<ids.count - 1).reduce(0.0) { $0 + Double(buffer.pointer[$1]) }
        return exp(-sum / Double(ids.count - 1))
    }

    /// (n, width) float32: the normalised final state of each token of a text.
    public func embed(_ ids: [Int], out: Tensor) throws(Failure) {
        try lock.locked { () throws(Failure) in
            try expect(out, "out", [ids.count, config.width])
            try read(ids) { (first, count) throws(Failure) in
                out.rows(first, count).data!.copyMemory(from: buffers.normed, byteCount: count * config.width * 4)
            }
        }
    }

    /// attention (layers, heads, n, n): how much each token attends to each; states (layers + 1, n, width): the embedding, then
    /// the residual stream behind each layer. float32, contiguous; of a text of at most 512 tokens.
    public func trace(_ ids: [Int], attention: Tensor?, states: Tensor?) throws(Failure) {
        try lock.locked { () throws(Failure) in
            guard ids.count <= LlamaModel.chunk else {
                throw .shape("ids: has \(ids.count) tokens, expected at most \(LlamaModel.chunk)")
            }
            try expect(attention, "attention", [config.layers, config.heads, ids.count, ids.count])
            try expect(states, "states", [config.layers + 1, ids.count, config.width])
            try read(ids, trace: PassTrace(attention: attention, states: states)) { _, _ in }
        }
    }

    /// Takes a text through the layers, in chunks; `body` finds the final states of each.
    private func read(_ ids: [Int], trace: PassTrace = PassTrace(),
                      _ body: (_ first: Int, _ count: Int) throws(Failure) -> Void) throws(Failure) {
        try check(ids)
        guard ids.count <= context else {
            throw .shape("ids: has \(ids.count) tokens, expected at most \(context), the context")
        }
        if ids.isEmpty { return }
        let caches = try newCaches(batch: 1, maxLength: ids.count, .float32)
        var first = 0
        while first < ids.count {
            let count = min(LlamaModel.chunk, ids.count - first)
            try pass(Array(ids[first..<first + count]), .run(entry: 0), caches, Array(first..<first + count), trace)
            try body(first, count)
            first += count
        }
    }
}

// MARK: Passes

extension LlamaModel {
    private func check(_ ids: [Int], least: Int = 0) throws(Failure) {
        for (i, id) in ids.enumerated() where !(least..<config.vocabulary).contains(id) {
            throw .argument("ids: entry \(i) is \(id), expected \(least) <= id < \(config.vocabulary)")
        }
    }

    /// An output: float32, contiguous.
    private func expect(_ out: Tensor?, _ name: StaticString, _ shape: Dims) throws(Failure) {
        guard let out else { return }
        guard out.dtype == .float32 else { throw .dtype("\(name): dtype is \(out.dtype), expected float32") }
        try out.checkedOutput(name).expect(shape: shape, name)
        guard out.isEmpty || Tensor(data: out.data, dtype: .float32, shape: shape).isSameView(as: out) else {
            throw .shape("\(name): strides are \(out.strides), expected a contiguous tensor")
        }
    }

    private func pass(_ ids: [Int], _ rows: PassRows, _ caches: [KVCache], _ positions: [Int],
                      _ trace: PassTrace = PassTrace(), isCoarse: Bool = false) throws(Failure) {
        try buffers.reserve(ids.count, config)
        try LlamaPass(config: config, weights: weights, rotary: rotary, window: window, buffers: buffers, caches: caches,
                      rows: rows, positions: positions, isCoarse: isCoarse, trace: trace).run(ids)
    }

    /// Logits of rows of the last pass.
    private func takeLogits(row: Int, count: Int, into out: Tensor) throws(Failure) {
        try LinearCall.run([LinearCall(weight: weights.head, out: out.data!.assumingMemoryBound(to: Float.self))],
                           buffers.normed + row * config.width, rows: count)
    }

    private func logitBuffer() throws(Failure) -> FloatBuffer {
        if let logits { return logits }
        let buffer = try FloatBuffer(LlamaModel.logitRows * config.vocabulary)
        logits = buffer
        return buffer
    }

    /// ln of the softmax of one entry.
    private func logProbability(of id: Int, _ logits: UnsafeBufferPointer<Float>) -> Float {
        let top = Double(logits.max()!)
        let sum = logits.reduce(0.0) { $0 + exp(Double($1) - top) }
        return Float(Double(logits[id]) - top - log(sum))
    }
}

extension Tensor {
    /// Rows [first, first + count) of a contiguous matrix.
    fileprivate func rows(_ first: Int, _ count: Int) -> Tensor {
        Tensor(data: pointer(byOffset: first * strides[0]), dtype: dtype, shape: [count, shape[1]])
    }
}
