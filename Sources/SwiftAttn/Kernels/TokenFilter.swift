/// A row of logits on its way to the probabilities that a token is drawn by.

import CAttnKernels
import Glibc

/// The row, in memory that is the caller's: logits first, probabilities after `apply`.
struct TokenFilter {
    let reals: UnsafeMutableRawPointer
    private let count: Int
    private let dtype: DType
    /// A number for each token.
    private let order: UnsafeMutablePointer<Int>

    /// reals: `count` numbers in the computing type of `dtype`.
    init(_ reals: UnsafeMutableRawPointer, _ count: Int, _ dtype: DType, order: UnsafeMutablePointer<Int>) {
        self.reals = reals
        self.count = count
        self.dtype = dtype.computing
        self.order = order
    }

    /// Leaves probabilities, which need not sum up to 1, in place of logits, of which none is NaN and one is above -inf.
    /// Sorts `previous`.
    func apply(_ options: SamplingOptions, previous: UnsafeMutableBufferPointer<Int>) {
        if dtype == .float64 { apply(Double.self, options, previous) } else { apply(Float.self, options, previous) }
    }

    /// Divides by the sum.
    func normalize() {
        if dtype == .float64 { normalize(Double.self) } else { normalize(Float.self) }
    }

    /// The first token at which the sum of the probabilities before it and its own exceeds the share u of all, 0 <= u < 1.
    func token(at u: Double) -> Int {
        dtype == .float64 ? token(Double.self, u) : token(Float.self, u)
    }

    private func row<R: Real>(_ type: R.Type) -> UnsafeMutablePointer<R> { reals.assumingMemoryBound(to: R.self) }

    private func apply<R: Real>(_ type: R.Type, _ options: SamplingOptions, _ previous: UnsafeMutableBufferPointer<Int>) {
        let x = row(R.self)
        penalize(x, options, previous)
        if options.temperature == 0 { return keepLargest(x) }
        if options.topK > 0 && options.topK < count { keepTop(x, options.topK) }
        toProbabilities(x, max(R(1 / options.temperature), R.leastNormalMagnitude))
        if options.topP < 1 { keepLikely(x, options.topP) }
        if options.minP > 0 { keepNearLikeliest(x, R(options.minP)) }
    }

    private func penalize<R: Real>(_ x: UnsafeMutablePointer<R>, _ options: SamplingOptions,
                                   _ previous: UnsafeMutableBufferPointer<Int>) {
        var previous = previous
        previous.sort()
        let repetition = R(options.repetitionPenalty)
        var first = 0
        while first < previous.count {
            let token = previous[first]
            var end = first + 1
            while end < previous.count && previous[end] == token { end += 1 }
            if token >= 0 && x[token].isFinite {
                let scaled = x[token] < 0 ? x[token] * repetition : x[token] / repetition
                let less = scaled - R(options.presencePenalty) - R(options.frequencyPenalty) * R(end - first)
                /* A number that overflows stays one. */
                x[token] = max(-R.greatestFiniteMagnitude, min(R.greatestFiniteMagnitude, less))
            }
            first = end
        }
    }

    /// Greedy: all the probability to the largest logit, the first of equal ones.
    private func keepLargest<R: Real>(_ x: UnsafeMutablePointer<R>) {
        var best = 0
        for i in 1..<max(count, 1) where x[i] > x[best] { best = i }
        x.update(repeating: 0, count: count)
        x[best] = 1
    }

    /// -inf in place of logits below the k-th largest; equal ones stay.
    private func keepTop<R: Real>(_ x: UnsafeMutablePointer<R>, _ k: Int) {
        /* `order` is a heap of the k largest so far, the smallest of them on top. */
        for i in 0..<k { order[i] = i }
        for i in (0..<k / 2).reversed() { sink(x, i, k) }
        for i in k..<count where x[i] > x[order[0]] {
            order[0] = i
            sink(x, 0, k)
        }
        let least = x[order[0]]
        for i in 0..<count where x[i] < least { x[i] = -R.infinity }
    }

    private func sink<R: Real>(_ x: UnsafeMutablePointer<R>, _ start: Int, _ size: Int) {
        var parent = start
        let token = order[parent]
        while true {
            var child = 2 * parent + 1
            if child >= size { break }
            if child + 1 < size && x[order[child + 1]] < x[order[child]] { child += 1 }
            if x[order[child]] >= x[token] { break }
            order[parent] = order[child]
            parent = child
        }
        order[parent] = token
    }

    /// softmax(x / temperature), taken of the distances to the maximum, which no temperature can make overflow to two
    /// infinities.
    private func toProbabilities<R: Real>(_ x: UnsafeMutablePointer<R>, _ inverse: R) {
        var top = -R.infinity
        for i in 0..<count { top = x[i] > top ? x[i] : top }
        if top == .infinity {
            for i in 0..<count { x[i] = x[i] == top ? 0 : -.infinity }
        } else {
            for i in 0..<count { x[i] = x[i] == top ? 0 : (x[i] - top) * inverse }
        }
        var shape = attn_rows(dtype: dtype.kernel, columns: Int64(count), x_column: 1, out_column: 1, stream: false)
        attn_softmax_row(&shape, x, x, nil)
    }

    /// Top-p: from the least likely token up, of equal ones the higher index first, 0 in place of probabilities as long as
    /// their sum is at most 1 - topP. The last one stays: greedy's.
    private func keepLikely<R: Real>(_ p: UnsafeMutablePointer<R>, _ topP: Double) {
        let spare = 1 - topP
        /* All that is below spare / count goes: together it cannot reach spare. The rest is sorted. */
        let low = R(spare / Double(count) * 0.999)
        var gone = 0.0, kept = 0
        for i in 0..<count {
            if p[i] > low {
                order[kept] = i
                kept += 1
            } else {
                gone += Double(p[i])
                p[i] = 0
            }
        }
        var candidates = UnsafeMutableBufferPointer(start: order, count: kept)
        candidates.sort { p[$0] < p[$1] || (p[$0] == p[$1] && $0 > $1) }
        for token in candidates.dropLast() {
            gone += Double(p[token])
            if gone > spare { break }
            p[token] = 0
        }
    }

    /// Min-p: 0 in place of probabilities below a share of the largest.
    private func keepNearLikeliest<R: Real>(_ p: UnsafeMutablePointer<R>, _ share: R) {
        var top: R = 0
        for i in 0..<count { top = p[i] > top ? p[i] : top }
        let least = top * share
        for i in 0..<count where p[i] < least { p[i] = 0 }
    }

    private func sum<R: Real>(_ p: UnsafeMutablePointer<R>) -> Double {
        var sum = 0.0
        for i in 0..<count { sum += Double(p[i]) }
        return sum
    }

    private func normalize<R: Real>(_ type: R.Type) {
        let p = row(R.self), factor = 1 / sum(p)
        for i in 0..<count { p[i] = R(Double(p[i]) * factor) }
    }

    private func token<R: Real>(_ type: R.Type, _ u: Double) -> Int {
        let p = row(R.self), target = u * sum(p)
        var reached = 0.0, last = 0
        for i in 0..<count where p[i] > 0 {
            reached += Double(p[i])
            last = i
            if reached > target { break }
        }
        return last
    }
}
