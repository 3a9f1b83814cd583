/// What a caller may ask of attention beyond q, k and v.

import CAttnKernels

/// Where causal masking puts query 0.
public enum Causal: Int32, Sendable {
    case none = 0
    /// Query 0 stands at key 0, as PyTorch's `is_causal`.
    case upperLeft = 1
    /// The last query stands at the last key, as FlashAttention and KV caches.
    case lowerRight = 2
}

/// Which products float32 work may use. A kernel may be better than asked.
public enum Precision: Int32, Sendable {
    /// float32 or better.
    case highest = 0
    /// About 16 significand bits.
    case high = 1
    /// bfloat16.
    case medium = 2

    var kernel: attn_precision { attn_precision(rawValue: UInt32(rawValue)) }
}

/// What the weights output holds.
public enum WeightsStage: Int32, Sendable {
    case probabilities = 0
    /// scale * q·k, visible or not.
    case scaled = 1
    /// After softcap, visible or not.
    case capped = 2
    /// After mask and ALiBi, -inf where not visible.
    case biased = 3
}

/// Options of the attention functions; the defaults are plain softmax attention.
///
/// Tensors: `B` batch, `Hq` query heads, `Tq`/`Tk` query and key length.
public struct AttentionOptions: Sendable {
    /// Of the scores; nil is 1/sqrt(head dim). May be 0 or negative.
    public var scale: Double?
    /// Above 0: s = softcap * tanh(s / softcap).
    public var softcap = 0.0
    public var causal = Causal.none
    public var precision = Precision.highest
    /// Position of query 0 in every batch entry; may be negative.
    public var queryOffset: Int?
    /// (B,) int32 or int64: the same for each batch entry.
    public var queryOffsets: Tensor?
    /// Keys before the query's position that are visible; nil or -1 is all.
    public var windowLeft: Int?
    /// Keys after it; nil or -1 is all.
    public var windowRight: Int?
    /// 0 <= dropoutP < 1, on the probabilities; Philox4x32-10 keyed by `seed`.
    public var dropoutP = 0.0
    public var seed: UInt64 = 0
    /// bool (true is visible) or float (added), broadcast to (B, Hq, Tq, Tk).
    public var mask: Tensor?
    /// (Hq,) float32, or float64 with float64 inputs.
    public var alibiSlopes: Tensor?
    /// (Hq,) as the slopes: a logit without a value.
    public var sinks: Tensor?
    /// (B,) int32 or int64: queries at or past it see no key.
    public var queryLengths: Tensor?
    /// (B,) int32 or int64: keys at or past it are not visible.
    public var keyValueLengths: Tensor?
    public var weightsStage = WeightsStage.probabilities

    public init() {}

    /// Whether any tensor is among them.
    var hasTensors: Bool {
        mask != nil || alibiSlopes != nil || sinks != nil || queryOffsets != nil || queryLengths != nil || keyValueLengths != nil
    }
}
