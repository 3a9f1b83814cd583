/// Gradients of attention on arrays.

/// The gradients of `scaledDotProductAttention` with respect to query, key and value, each of its input's shape:
///
///     ds = P * (outGradient · v - outGradient · out);  dq = scale * ds · k;  dk = scale * dsᵀ · q;  dv = Pᵀ · outGradient
///
/// with softcap and dropout in their places. A row that sees no key gives and gets zeros.
///
/// - Parameters:
///   - outGradient: (..., Hq, Tq, Dv), a loss's gradient with respect to out.
///   - query, key, value, options, arrays: as in the forward.
///   - out, lse: what `scaledDotProductAttentionWithLSE` returned.
/// - Throws: `Failure` for whatever does not fit.
///
/// Source: Dao 2023 (FlashAttention-2).
public func scaledDotProductAttentionBackward<T: FloatingElement>(
    outGradient: NDArray<T>, query: NDArray<T>, key: NDArray<T>, value: NDArray<T>, out: NDArray<T>,
    lse: NDArray<T.Computing>, options: AttentionOptions = AttentionOptions(), arrays: AttentionArrays = AttentionArrays()
) throws(Failure) -> (dq: NDArray<T>, dk: NDArray<T>, dv: NDArray<T>) {
    var dk: NDArray<T>?, dv: NDArray<T>?
    let dq = try withTensors(outGradient, query, key, value, out, lse) { (t) throws(Failure) in
        try arrays.lend(to: options, like: T.self) { (options) throws(Failure) in
            try NDArray<T>(shape: Dims(query.shape)) { (a) throws(Failure) in
                dk = try NDArray<T>(shape: Dims(key.shape)) { (b) throws(Failure) in
                    dv = try NDArray<T>(shape: Dims(value.shape)) { (c) throws(Failure) in
                        try scaledDotProductAttentionBackward(
                            outGradient: t[0]!, query: t[1]!, key: t[2]!, value: t[3]!, out: t[4]!, lse: t[5]!,
                            options: options, dq: a, dk: b, dv: c)
                    }
                }
            }
        }
    }
    return (dq, dk!, dv!)
}
