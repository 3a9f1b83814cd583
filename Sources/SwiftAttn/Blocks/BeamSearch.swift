/// Greedy decoding and beam search of an encoder-decoder.

import Glibc

/// How an `EncoderDecoder` writes.
public struct BeamOptions: Sendable {
    /// The token that every sequence begins with; it is not part of the result.
    public var start: Int
    /// The token that ends a sequence; it is part of the result.
    public var end: Int
    /// Tokens at most.
    public var maxLength: Int
    /// 1 is greedy decoding.
    public var beams = 1
    /// A sequence of n tokens is worth the sum of its log-probabilities / n^lengthPenalty.
    public var lengthPenalty = 1.0

    public init(start: Int, end: Int, maxLength: Int) {
        self.start = start
        self.end = end
        self.maxLength = maxLength
    }
}

/// What was written for one source.
public struct Written: Sendable, Equatable {
    /// With the end, if it was reached.
    public var tokens: [Int]
    /// Sum of log-probabilities / count^lengthPenalty.
    public var score: Double
}

extension EncoderDecoder {
    /// The best sequence that a beam search finds for each of source (B, S), token by token through the KV caches; the memory's
    /// keys and values are projected once, and all beams of a source read the same ones.
    ///
    /// In each step a beam's tokens compete by the sum of their log-probabilities; the best 2 * beams of all are looked at, an
    /// end among the first `beams` completes a sequence, the others go on. A source is done when it has `beams` sequences and
    /// none that goes on could be worth more than the worst of them now. Equal sums: the earlier beam and the smaller token first.
    ///
    /// - Throws: `Failure` for whatever does not fit; float64 modules, which no cache takes, included.
    public func write(source: Tensor, keyPaddingMask: Tensor? = nil, _ options: BeamOptions) throws(Failure) -> [Written] {
        try source.checked("src").expect(rank: 2...2, "src")
        let layer = self.options.layer, batch = source.shape[0], beams = options.beams, vocabulary = head.outputs
        guard layer.dtype != .float64 else { throw .dtype("module: dtype is float64, expected one that a cache takes") }
        for (name, token) in [("start", options.start), ("end", options.end)] where !(0..<vocabulary).contains(token) {
            throw .argument("\(name): expected 0 to \(vocabulary - 1), got \(token)")
        }
        guard (1...1 << 20).contains(options.maxLength) else {
            throw .argument("max_length: expected 1 to \(1 << 20), got \(options.maxLength)")
        }
        guard (1...1024).contains(beams) else { throw .argument("beams: expected 1 to 1024, got \(beams)") }
        guard vocabulary > 1 else { throw .argument("module: the vocabulary has 1 token, expected at least 2 to write") }
        guard options.lengthPenalty.isFinite else {
            throw .argument("length_penalty: expected a finite number, got \(options.lengthPenalty)")
        }
        let pass = Pass(precision: layer.precision)
        let memory = try encode(source, Visibility(keyPaddingMask: keyPaddingMask), pass)
        if batch == 0 { return [] }
        let state = try decoder.start(memory: memory, padding: keyPaddingMask, beams: beams, maxLength: options.maxLength, pass)
        var searches = (0..<batch).map { _ in BeamSearch(options) }
        var tokens = [Int64](repeating: Int64(options.start), count: batch * beams)
        for step in 0..<options.maxLength {
            let logits = try tokens.withTensor { (ids) throws(Failure) in
                let x = try targetEmbedding(ids.reshaped([batch * beams, 1], strides: [1, 1]), types: nil, from: step, pass)
                return try head(decoder.run(x, state, pass), pass)
            }
            let rows = try logProbabilities(logits, pass)
            var origins: [Int] = []
            for b in 0..<batch {
                searches[b].advance(rows.tensor.data!.assumingMemoryBound(to: Double.self) + b * beams * vocabulary, vocabulary)
                origins += searches[b].origins.map { b * beams + $0 }
                for (k, beam) in searches[b].beams.enumerated() { tokens[b * beams + k] = Int64(beam.tokens.last!) }
            }
            if searches.allSatisfy(\.isDone) { break }
            try state.reorder(origins)
        }
        return searches.map(\.best)
    }

    /// The same into ids (B, N) int64, with at most N tokens and -1 behind the last, and scores (B,) float64.
    public func write(source: Tensor, keyPaddingMask: Tensor? = nil, _ given: BeamOptions, ids: Tensor,
                      scores: Tensor? = nil) throws(Failure) {
        try ids.expect(rank: 2...2, "ids")
        try ids.expect(dtype: .int64, "ids", as: "the result")
        try source.expect(rank: 2...2, "src")
        guard ids.shape[0] == source.shape[0] else {
            throw .shape("ids: batch is \(ids.shape[0]), src has \(source.shape[0])")
        }
        try scores?.expect(dtype: .float64, "scores", as: "the result")
        try scores?.expect(shape: [source.shape[0]], "scores")
        for output in [Output("ids", try ids.checkedOutput("ids")), Output("scores", try scores?.checkedOutput("scores"))] {
            try output?.expectApart(from: source, "src")
            try output?.expectApart(from: keyPaddingMask, "key_padding_mask")
        }
        try Output("ids", ids)?.expectApart(from: scores, "scores")
        var options = given
        options.maxLength = ids.shape[1]
        for (b, written) in try write(source: source, keyPaddingMask: keyPaddingMask, options).enumerated() {
            for n in 0..<ids.shape[1] {
                let place = ids.pointer(byOffset: b &* ids.strides[0] &+ n &* ids.strides[1])
                place.storeBytes(of: n < written.tokens.count ? Int64(written.tokens[n]) : -1, as: Int64.self)
            }
            if let scores { scores.pointer(byOffset: b &* scores.strides[0]).storeBytes(of: written.score, as: Double.self) }
        }
    }

    /// logits (rows, 1, V) -> their log-softmax in float64, (rows, V).
    private func logProbabilities(_ logits: Value, _ pass: Pass) throws(Failure) -> Value {
        let rows = logits.tensor.shape[0], columns = logits.tensor.shape[2]
        let result = try pass.value(.float64, [rows, columns])
        try copyConverting(logits.tensor.reshaped([rows, columns], strides: [columns, 1]), to: result.tensor)
        let numbers = result.tensor.data!.assumingMemoryBound(to: Double.self)
        parallelFor(rows, grain: max(1, elementsPerRange / (16 * columns))) { range in
            for row in range {
                let p = numbers + row * columns
                var largest = -Double.infinity
                for i in 0..<columns { largest = max(largest, p[i]) }
                var sum = 0.0
                for i in 0..<columns { sum += exp(p[i] - largest) }
                let logarithm = largest + log(sum)
                for i in 0..<columns { p[i] -= logarithm }
            }
        }
        return result
    }
}

/// The beams of one source.
private struct BeamSearch {
    struct Beam {
        var tokens: [Int]
        var sum: Double
    }

    private let options: BeamOptions
    private(set) var beams: [Beam]
    /// The beam that each one goes on from.
    private(set) var origins: [Int]
    private var finished: [Written] = []
    private(set) var isDone = false

    init(_ options: BeamOptions) {
        self.options = options
        beams = (0..<options.beams).map { Beam(tokens: [], sum: $0 == 0 ? 0 : -.infinity) }
        origins = Array(0..<options.beams)
    }

    /// One step; rows: log-probabilities (beams, vocabulary).
    mutating func advance(_ rows: UnsafePointer<Double>, _ vocabulary: Int) {
        origins = Array(0..<options.beams)
        if isDone { return }
        var next: [Beam] = [], from: [Int] = []
        for (rank, candidate) in best(2 * options.beams, rows, vocabulary).enumerated() {
            let beam = beams[candidate.beam], tokens = beam.tokens + [candidate.token]
            if candidate.token == options.end {
                if rank < options.beams { finish(Beam(tokens: tokens, sum: candidate.sum)) }
            } else if next.count < options.beams {
                next.append(Beam(tokens: tokens, sum: candidate.sum))
                from.append(candidate.beam)
            }
        }
        beams = next
        origins = from
        let length = beams[0].tokens.count
        if finished.count >= options.beams, finished.last!.score >= worth(beams[0].sum, length) { isDone = true }
        if length == options.maxLength, !isDone {
            for beam in beams { finish(beam) }
            isDone = true
        }
    }

    /// The best complete sequence.
    var best: Written { finished[0] }

    private func worth(_ sum: Double, _ length: Int) -> Double { sum / pow(Double(length), options.lengthPenalty) }

    /// Keeps as many complete sequences as there are beams, the best first.
    private mutating func finish(_ beam: Beam) {
        let written = Written(tokens: beam.tokens, score: worth(beam.sum, beam.tokens.count))
        finished.insert(written, at: finished.firstIndex { $0.score < written.score } ?? finished.count)
        if finished.count > options.beams { finished.removeLast() }
    }

    /// The candidates of the largest sums, in falling order.
    private func best(_ count: Int, _ rows: UnsafePointer<Double>, _ vocabulary: Int) -> [(beam: Int, token: Int, sum: Double)] {
        var top: [(beam: Int, token: Int, sum: Double)] = []
        top.reserveCapacity(count + 1)
        for beam in 0..<options.beams {
            let row = rows + beam * vocabulary, base = beams[beam].sum
            for token in 0..<vocabulary {
                let sum = base + row[token]
                if top.count == count, !(sum > top[count - 1].sum) { continue }
                let place = sum.isNaN ? top.count : top.firstIndex { $0.sum < sum } ?? top.count
                top.insert((beam, token, sum), at: place)
                if top.count > count { top.removeLast() }
            }
        }
        return top
    }
}
