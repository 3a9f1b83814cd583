/// Chapter "Sampling" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_sample")
public func swiftattn_sample(
    _ logits: TensorPointer?, _ options: UnsafePointer<swiftattn_sampling_options>?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try sample(tensor(logits, "logits"), options: samplingOptions(options), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_sampling_distribution")
public func swiftattn_sampling_distribution(
    _ logits: TensorPointer?, _ options: UnsafePointer<swiftattn_sampling_options>?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try samplingDistribution(tensor(logits, "logits"), options: samplingOptions(options), out: tensor(out, "out"))
    }
}

private let samplingOptionsV1 = MemoryLayout<swiftattn_sampling_options>.size

func samplingOptions(_ pointer: UnsafePointer<swiftattn_sampling_options>?) throws(Failure) -> SamplingOptions {
    let c = try options(pointer, smallest: samplingOptionsV1)
    guard c.flags & ~(SWIFTATTN_SAMPLING_HAS_TEMPERATURE | SWIFTATTN_SAMPLING_HAS_TOP_P) == 0 else {
        throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_SAMPLING_HAS_*, got \(c.flags)")
    }
    var result = SamplingOptions()
    if c.flags & SWIFTATTN_SAMPLING_HAS_TEMPERATURE != 0 { result.temperature = c.temperature }
    result.topK = Int(c.top_k)
    if c.flags & SWIFTATTN_SAMPLING_HAS_TOP_P != 0 { result.topP = c.top_p }
    result.minP = c.min_p
    if c.repetition_penalty != 0 { result.repetitionPenalty = c.repetition_penalty }
    result.presencePenalty = c.presence_penalty
    result.frequencyPenalty = c.frequency_penalty
    result.previousTokens = try optionalTensor(c.previous_tokens, "previous_tokens")
    result.seed = c.seed
    result.draw = c.draw
    return result
}
