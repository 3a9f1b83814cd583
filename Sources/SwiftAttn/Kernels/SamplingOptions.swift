/// What a token is drawn by.

/// Options of `sample`. The defaults draw from softmax(logits) as it is.
public struct SamplingOptions: Sendable {
    /// Divides the logits; 0 takes the largest one, the lowest index of equal ones.
    public var temperature = 1.0
    /// Keeps logits not below the k-th largest; 0 keeps all.
    public var topK = 0
    /// Takes away the least likely tokens as long as what they sum up to is at most 1 - topP; the most likely one stays.
    public var topP = 1.0
    /// Takes away tokens less likely than minP times the most likely one.
    public var minP = 0.0
    /// Divides positive logits of previous tokens and multiplies negative ones.
    public var repetitionPenalty = 1.0
    /// Taken off the logits of previous tokens once, and once for each time they occurred.
    public var presencePenalty = 0.0
    public var frequencyPenalty = 0.0
    /// (..., n) int32 or int64, broadcast to the rows of logits; -1 is no token.
    public var previousTokens: Tensor?
    /// Rows of one call, and calls that differ in `draw`, are independent under one seed.
    public var seed: UInt64 = 0
    public var draw: UInt64 = 0

    public init() {}

    func check() throws(Failure) {
        guard temperature >= 0, temperature.isFinite else {
            throw .argument("temperature: expected a finite number of at least 0, got \(temperature)")
        }
        guard topK >= 0 else { throw .argument("top_k: expected at least 0, got \(topK)") }
        for (name, share) in [("top_p", topP), ("min_p", minP)] as [(StaticString, Double)] {
            guard share >= 0, share <= 1 else { throw .argument("\(name): expected 0 to 1, got \(share)") }
        }
        guard repetitionPenalty > 0, repetitionPenalty.isFinite else {
            throw .argument("repetition_penalty: expected a finite number above 0, got \(repetitionPenalty)")
        }
        for (name, penalty) in [("presence_penalty", presencePenalty), ("frequency_penalty", frequencyPenalty)]
            as [(StaticString, Double)] {
            guard penalty.isFinite else { throw .argument("\(name): expected a finite number, got \(penalty)") }
        }
    }

    var hasPenalties: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }
}
