/// Random numbers by number: the generator of sampling and dropout.

/// Philox4x32-10 with the key (low, high 32 bits of the seed): four random words for each counter. Nothing is kept between
/// calls, so any number of threads draw the same words. Source: Salmon et al. 2011.
struct Philox {
    private let low: UInt32
    private let high: UInt32

    init(seed: UInt64) {
        low = UInt32(truncatingIfNeeded: seed)
        high = UInt32(truncatingIfNeeded: seed >> 32)
    }

    func words(_ counter: SIMD4<UInt32>) -> SIMD4<UInt32> {
        var c = counter, k0 = low, k1 = high
        for _ in 0..<10 {
            let a = UInt64(c[0]) * 0xD251_1F53, b = UInt64(c[2]) * 0xCD9E_8D57
            c = SIMD4(UInt32(truncatingIfNeeded: b >> 32) ^ c[1] ^ k0, UInt32(truncatingIfNeeded: b),
                      UInt32(truncatingIfNeeded: a >> 32) ^ c[3] ^ k1, UInt32(truncatingIfNeeded: a))
            k0 &+= 0x9E37_79B9
            k1 &+= 0xBB67_AE85
        }
        return c
    }

    /// 0 <= u < 1 in steps of 2^-53, from the first two words of counter (row, draw).
    func uniform(row: UInt64, draw: UInt64) -> Double {
        let w = words(SIMD4(UInt32(truncatingIfNeeded: row), UInt32(truncatingIfNeeded: row >> 32),
                            UInt32(truncatingIfNeeded: draw), UInt32(truncatingIfNeeded: draw >> 32)))
        return Double((UInt64(w[0]) << 32 | UInt64(w[1])) >> 11) * 0x1p-53
    }
}
