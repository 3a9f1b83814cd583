/// Angular frequencies of rotary positions, and how they are stretched for contexts longer than those trained on.

import Glibc

/// How the frequencies inv[i] = base^(-2i/dim) are changed; the words are those of Hugging Face's `rope_scaling`.
///
/// L is `originalLength`, n the length of the tables, f `factor`:
///
///     linear     inv / f
///     dynamic    base · (f · max(n, L) / L - (f - 1))^(dim / (dim - 2)) in place of base
///     ntk        base · f^(dim / (dim - 2)) in place of base
///     llama3     with the wavelength w = 2π / inv: inv where w < L / high, inv / f where w > L / low, and between
///                ((1 - s) / f + s) · inv, s = (L / w - low) / (high - low)
///     yarn       r / f · inv + (1 - r) · inv, r = clamp((i - a) / (b - a), 0, 1), a and b the dims that turn betaFast and
///                betaSlow times over L
///     longRope   inv / longFactors[i] where n > L, else inv / shortFactors[i]
///
/// A file's own divisors of the frequencies (GGUF's `rope_freqs`) are `longRope` with both lists the same and an
/// `attentionFactor` of 1.
///
/// Source: Chen et al. 2023 (linear), Peng et al. 2023 (yarn, and ntk within), Dubey et al. 2024 (llama3), Ding et al. 2024
/// (longRope).
public struct RotaryScaling: Sendable, Equatable {
    public enum Kind: Int32, Sendable {
        case none = 0, linear = 1, dynamic = 2, ntk = 3, llama3 = 4, yarn = 5, longRope = 6
    }

    public var kind: Kind
    /// Of all kinds but none; longRope needs it only for its attention factor.
    public var factor: Double?
    /// Positions trained on, `original_max_position_embeddings`: of dynamic, llama3, yarn and longRope.
    public var originalLength: Int?
    /// Multiplies both tables, of yarn and longRope. nil: yarn m(f, mscale) / m(f, mscaleAllDim) if both are given, else
    /// m(f, 1), with m(f, k) = 0.1 k ln f + 1; longRope sqrt(1 + ln f / ln L). Either is 1 for f <= 1.
    public var attentionFactor: Double?
    public var mscale: Double?
    public var mscaleAllDim: Double?
    public var betaFast = 32.0
    public var betaSlow = 1.0
    /// Whether yarn's a and b are rounded outwards to whole dims.
    public var truncates = true
    public var lowFrequencyFactor = 1.0
    public var highFrequencyFactor = 4.0
    /// Divisors for each pair of dims.
    public var shortFactors: [Double] = []
    public var longFactors: [Double] = []

    public init(_ kind: Kind = .none, factor: Double? = nil, originalLength: Int? = nil) {
        self.kind = kind
        self.factor = factor
        self.originalLength = originalLength
    }

    /// inv[i] for 0 <= i < dim / 2, and what both tables are multiplied by.
    ///
    /// - Throws: `Failure` for a number out of range, or one that the kind needs and that is missing.
    public func frequencies(dim: Int, length: Int, base: Double) throws(Failure) -> (inverse: [Double], attention: Double) {
        try check(pairs: dim / 2, base: base)
        let f = factor ?? 1, original = Double(originalLength ?? 1), d = Double(dim)
        var base = base
        if dim > 2 {  // a single pair turns at 1 whatever the base
            switch kind {
            case .dynamic: base *= pow(f * max(Double(length), original) / original - (f - 1), d / (d - 2))
            case .ntk: base *= pow(f, d / (d - 2))
            default: break
            }
        }
        var inverse = (0..<dim / 2).map { pow(base, -2 * Double($0) / d) }
        switch kind {
        case .none, .dynamic, .ntk: break
        case .linear: for i in inverse.indices { inverse[i] /= f }
        case .llama3: for i in inverse.indices { inverse[i] = stretchedByWavelength(inverse[i], f, original) }
        case .yarn:
            let (a, b) = yarnRange(d, base, original)
            for i in inverse.indices {
                let ramp = min(max((Double(i) - a) / (b - a), 0), 1)
                inverse[i] = inverse[i] / f * ramp + inverse[i] * (1 - ramp)
            }
        case .longRope:
            let factors = length > originalLength! ? longFactors : shortFactors
            for i in inverse.indices { inverse[i] /= factors[i] }
        }
        return (inverse, attention(f, original))
    }

    private func stretchedByWavelength(_ inverse: Double, _ f: Double, _ original: Double) -> Double {
        let wavelength = 2 * Double.pi / inverse
        if wavelength < original / highFrequencyFactor { return inverse }
        if wavelength > original / lowFrequencyFactor { return inverse / f }
        let s = (original / wavelength - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor)
        return ((1 - s) / f + s) * inverse
    }

    /// The dims between which yarn goes over from the old frequencies to the stretched ones.
    private func yarnRange(_ dim: Double, _ base: Double, _ original: Double) -> (Double, Double) {
        func turning(_ times: Double) -> Double { dim * log(original / (times * 2 * .pi)) / (2 * log(base)) }
        var a = turning(betaFast), b = turning(betaSlow)
        if truncates { (a, b) = (a.rounded(.down), b.rounded(.up)) }
        (a, b) = (max(a, 0), min(b, dim - 1))
        return (a, a == b ? b + 0.001 : b)
    }

    private func attention(_ f: Double, _ original: Double) -> Double {
        if let attentionFactor { return attentionFactor }
        if f <= 1 { return 1 }
        func m(_ k: Double) -> Double { 0.1 * k * log(f) + 1 }
        switch kind {
        case .yarn:
            if let mscale, let mscaleAllDim { return m(mscale) / m(mscaleAllDim) }
            return m(1)
        case .longRope: return sqrt(1 + log(f) / log(original))
        default: return 1
        }
    }

    private func check(pairs: Int, base: Double) throws(Failure) {
        guard base > 1, base.isFinite else { throw .argument("base: expected a finite number above 1, got \(base)") }
        let isStretched = kind == .yarn || kind == .longRope
        guard kind == .none || factor != nil || (kind == .longRope && attentionFactor != nil) else {
            throw .argument("factor: is missing, expected a finite number above 0")
        }
        for (name, number) in [("factor", factor), ("attention_factor", attentionFactor), ("beta_fast", betaFast),
                               ("beta_slow", betaSlow), ("low_freq_factor", lowFrequencyFactor),
                               ("high_freq_factor", highFrequencyFactor)] as [(StaticString, Double?)] {
            guard let number, !(number > 0 && number.isFinite) else { continue }
            throw .argument("\(name): expected a finite number above 0, got \(number)")
        }
        for (name, number) in [("mscale", mscale), ("mscale_all_dim", mscaleAllDim)] as [(StaticString, Double?)] {
            guard let number, !(number >= 0 && number.isFinite) else { continue }
            throw .argument("\(name): expected a finite number of at least 0, got \(number)")
        }
        guard attentionFactor == nil || isStretched else {
            throw .argument("attention_factor: expected with yarn and longrope only")
        }
        if kind == .dynamic || kind == .llama3 || isStretched {
            guard let originalLength, originalLength > 1 else {
                throw .argument("original_length: expected at least 2, got \(originalLength.map(String.init) ?? "none")")
            }
        }
        guard highFrequencyFactor > lowFrequencyFactor || kind != .llama3 else {
            throw .argument("high_freq_factor: is \(highFrequencyFactor), expected above low_freq_factor \(lowFrequencyFactor)")
        }
        if kind != .longRope { return }
        for (name, factors) in [("short_factors", shortFactors), ("long_factors", longFactors)] as [(StaticString, [Double])] {
            guard factors.count == pairs else {
                throw .shape("\(name): shape is (\(factors.count),), expected (\(pairs),)")
            }
            for (i, factor) in factors.enumerated() where !(factor > 0 && factor.isFinite) {
                throw .argument("\(name): entry \(i) is \(factor), expected a finite number above 0")
            }
        }
    }
}
