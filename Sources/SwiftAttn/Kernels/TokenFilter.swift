/// A row of logits on its way to the probabilities that a token is drawn by.

import CAttnKernels
import Glibc

/// The row, in memory that is the caller's: logits first, probabilities after `apply`.
struct TokenFilter {
    private let reals: UnsafeMutableRawPointer
    private let count: Int
    private let dtype: DType
    /// The tokens that are left, in order, as far as `isListed`; before that, all of them.
    private let list: UnsafeMutablePointer<Int>
    private var left: Int
    private var isListed = false
    /// Their probabilities side by side, when they are listed.
    private let shares: UnsafeMutableRawPointer

    /// reals: `count` numbers in the computing type of `dtype`; shares: room for as many, list: for as many tokens.
    init(_ reals: UnsafeMutableRawPointer, _ count: Int, _ dtype: DType, shares: UnsafeMutableRawPointer,
         list: UnsafeMutablePointer<Int>) {
        self.reals = reals
        self.count = count
        self.dtype = dtype.computing
        self.list = list
        self.shares = shares
        left = count
    }

    /// Leaves probabilities, which need not sum up to 1, in place of logits, of which none is NaN and one is above -inf.
    /// Sorts `previous`.
    mutating func apply(_ options: SamplingOptions, previous: UnsafeMutableBufferPointer<Int>) {
        if dtype == .float64 { apply(Double.self, options, previous) } else { apply(Float.self, options, previous) }
    }

    /// The probabilities of all tokens, divided by their sum, as a row of `dtype` whose elements lie `stride` apart.
    func store(_ dtype: DType, _ out: UnsafeMutableRawPointer, stride: Int) {
        if self.dtype == .float64 { store(Double.self, dtype, out, stride) } else { store(Float.self, dtype, out, stride) }
    }

    /// The first token at which the sum of the probabilities before it and its own exceeds the share u of all, 0 <= u < 1.
    func token(at u: Double) -> Int {
        dtype == .float64 ? token(Double.self, u) : token(Float.self, u)
    }

    private func row<R: Real>(_ type: R.Type) -> UnsafeMutablePointer<R> { reals.assumingMemoryBound(to: R.self) }

    private mutating func apply<R: Real>(_ type: R.Type, _ options: SamplingOptions,
                                         _ previous: UnsafeMutableBufferPointer<Int>) {
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

    /// The i-th of the tokens that are left.
    @inline(__always)
    private func token(_ i: Int) -> Int { isListed ? list[i] : i }

    /// Takes away the tokens that do not fulfil it.
    @inline(__always)
    private mutating func keep(_ isKept: (_ token: Int) -> Bool) {
        var kept = 0
        for i in 0..<left {
            let token = token(i)
            list[kept] = token
            kept += isKept(token) ? 1 : 0
        }
        left = kept
        isListed = true
    }

    /// Greedy: all the probability to the largest logit, the first of equal ones.
    private mutating func keepLargest<R: Real>(_ x: UnsafeMutablePointer<R>) {
        var best = 0
        for i in 1..<max(count, 1) where x[i] > x[best] { best = i }
        x[best] = 1
        list[0] = best
        left = 1
        isListed = true
    }

    /// Calls `body` with each token whose logit is at least `least` (which it may raise), in order. Of most rows that is hardly
    /// any: those of a group are held against it at once.
    @inline(__always)
    private func forEach<R: Real>(from first: Int, _ x: UnsafeMutablePointer<R>, atLeast least: inout R,
                                  _ body: (_ token: Int, _ least: inout R) -> Void) {
        let group = 16
        var i = first
        while i < count {
            let end = min(i + group, count)
            if end < i + group || R.isAny(of: x + i, atLeast: least) {
                for token in i..<end where x[token] >= least { body(token, &least) }
            }
            i = end
        }
    }

    /// Takes away the tokens below `least`.
    private mutating func keep<R: Real>(_ x: UnsafeMutablePointer<R>, atLeast least: R) {
        if isListed { return keep { x[$0] >= least } }
        let list = list
        var kept = 0, least = least
        forEach(from: 0, x, atLeast: &least) { token, _ in
            list[kept] = token
            kept += 1
        }
        left = kept
        isListed = true
    }

    private func largest<R: Real>(_ x: UnsafeMutablePointer<R>) -> R {
        var top = -R.infinity
        if isListed {
            for i in 0..<left { top = max(top, x[list[i]]) }
        } else {
            forEach(from: 0, x, atLeast: &top) { token, top in top = x[token] }
        }
        return top
    }

    /// Takes away the tokens below the k-th largest logit; equal ones stay.
    private mutating func keepTop<R: Real>(_ x: UnsafeMutablePointer<R>, _ k: Int) {
        /* `list` is a heap of the k largest so far, the smallest of them on top. */
        let heap = list
        for i in 0..<k { heap[i] = i }
        for i in (0..<k / 2).reversed() { sink(x, i, k) }
        var least = x[heap[0]]
        forEach(from: k, x, atLeast: &least) { token, least in
            if x[token] == least { return }
            heap[0] = token
            sink(x, 0, k)
            least = x[heap[0]]
        }
        keep(x, atLeast: least)
    }

    private func sink<R: Real>(_ x: UnsafeMutablePointer<R>, _ start: Int, _ size: Int) {
        var parent = start
        let token = list[parent]
        while true {
            var child = 2 * parent + 1
            if child >= size { break }
            if child + 1 < size && x[list[child + 1]] < x[list[child]] { child += 1 }
            if x[list[child]] >= x[token] { break }
            list[parent] = list[child]
            parent = child
        }
        list[parent] = token
    }

    /// softmax(x / temperature), taken of the distances to the maximum, which no temperature can make overflow to two
    /// infinities.
    private func toProbabilities<R: Real>(_ x: UnsafeMutablePointer<R>, _ inverse: R) {
        let p = isListed ? shares.assumingMemoryBound(to: R.self) : x, top = largest(x)
        if isListed { for i in 0..<left { p[i] = x[list[i]] } }
        if top == .infinity {
            for i in 0..<left { p[i] = p[i] == top ? 0 : -.infinity }
        } else {
            for i in 0..<left { p[i] = p[i] == top ? 0 : (p[i] - top) * inverse }
        }
        var shape = attn_rows(dtype: dtype.kernel, columns: Int64(left), x_column: 1, out_column: 1, stream: false)
        attn_softmax_row(&shape, p, p, nil)
        if isListed { for i in 0..<left { x[list[i]] = p[i] } }
    }

    /// Top-p: takes away tokens from the least likely up, of equal ones the higher index first, as long as the sum of their
    /// probabilities is at most 1 - topP. The last one stays: greedy's.
    private mutating func keepLikely<R: Real>(_ p: UnsafeMutablePointer<R>, _ topP: Double) {
        let spare = 1 - topP
        /* All that is below spare / count goes: together it cannot reach spare. The rest is sorted. */
        let low = R(spare / Double(left) * 0.999)
        var gone = 0.0
        keep {
            let isKept = p[$0] > low
            if !isKept { gone += Double(p[$0]) }
            return isKept
        }
        var candidates = UnsafeMutableBufferPointer(start: list, count: left)
        candidates.sort { p[$0] < p[$1] || (p[$0] == p[$1] && $0 > $1) }
        var first = 0
        while first < left - 1 {
            gone += Double(p[list[first]])
            if gone > spare { break }
            first += 1
        }
        left -= first
        for i in 0..<left { list[i] = list[first + i] }
        candidates = UnsafeMutableBufferPointer(start: list, count: left)
        candidates.sort()
    }

    /// Min-p: takes away tokens whose probability is below a share of the largest.
    private mutating func keepNearLikeliest<R: Real>(_ p: UnsafeMutablePointer<R>, _ share: R) {
        keep(p, atLeast: largest(p) * share)
    }

    private func sum<R: Real>(_ p: UnsafeMutablePointer<R>) -> Double {
        var sums = SIMD4<Double>.zero, i = 0  // four, so that an addition does not wait for the one before it
        while i < left {
            for lane in 0..<min(4, left - i) { sums[lane] += Double(p[token(i + lane)]) }
            i += 4
        }
        return sums.sum()
    }

    private func store<R: Real>(_ type: R.Type, _ dtype: DType, _ out: UnsafeMutableRawPointer, _ stride: Int) {
        let p = row(R.self), factor = 1 / sum(p), step = stride &* dtype.size
        if !isListed {
            for i in 0..<count { p[i] = R(Double(p[i]) * factor) }
            return attn_store_row(dtype.kernel, p, Int64(count), out, Int64(stride))
        }
        for i in 0..<left { p[list[i]] = R(Double(p[list[i]]) * factor) }
        if stride == 1 {
            memset(out, 0, count * dtype.size)
        } else {
            for i in 0..<count { memset(out + i &* step, 0, dtype.size) }
        }
        for i in 0..<left { attn_store_row(dtype.kernel, p + list[i], 1, out + list[i] &* step, 1) }
    }

    private func token<R: Real>(_ type: R.Type, _ u: Double) -> Int {
        let p = row(R.self), target = u * sum(p)
        var reached = 0.0, last = 0
        for i in 0..<left where p[token(i)] > 0 {
            last = token(i)
            reached += Double(p[last])
            if reached > target { break }
        }
        return last
    }
}
