/// Chapter "Rotary positions" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private let pairings: StaticString = "SWIFTATTN_ROTARY_HALVES or NEIGHBOURS"

@_cdecl("swiftattn_rotary_tables")
public func swiftattn_rotary_tables(
    _ options: UnsafePointer<swiftattn_rotary_options>?, _ cos: TensorPointer?, _ sin: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let (base, scaling) = try rotaryOptions(options)
        try rotaryTables(base: base, scaling: scaling, cos: tensor(cos, "cos"), sin: tensor(sin, "sin"))
    }
}

@_cdecl("swiftattn_rotary_embedding")
public func swiftattn_rotary_embedding(
    _ x: TensorPointer?, _ cos: TensorPointer?, _ sin: TensorPointer?, _ position_ids: TensorPointer?, _ pairing: Int32,
    _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try rotaryEmbedding(tensor(x, "x"), cos: tensor(cos, "cos"), sin: tensor(sin, "sin"),
                            positions: optionalTensor(position_ids, "position_ids"),
                            pairing: enumeration(pairing, "pairing", pairings), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_rotary_embedding_backward")
public func swiftattn_rotary_embedding_backward(
    _ grad_out: TensorPointer?, _ cos: TensorPointer?, _ sin: TensorPointer?, _ position_ids: TensorPointer?,
    _ pairing: Int32, _ dx: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try rotaryEmbeddingBackward(gradOut: tensor(grad_out, "grad_out"), cos: tensor(cos, "cos"), sin: tensor(sin, "sin"),
                                    positions: optionalTensor(position_ids, "position_ids"),
                                    pairing: enumeration(pairing, "pairing", pairings), dx: tensor(dx, "dx"))
    }
}

private let rotaryOptionsV1 = MemoryLayout<swiftattn_rotary_options>.size

func rotaryOptions(_ pointer: UnsafePointer<swiftattn_rotary_options>?) throws(Failure) -> (Double, RotaryScaling) {
    let c = try options(pointer, smallest: rotaryOptionsV1)
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    guard c.no_truncate == 0 || c.no_truncate == 1 else {
        throw Failure(.invalidArgument, "no_truncate: expected 0 or 1, got \(c.no_truncate)")
    }
    func given(_ number: Double) -> Double? { number == 0 ? nil : number }
    var scaling = RotaryScaling(try enumeration(c.scaling, "scaling", "SWIFTATTN_ROTARY_*"))
    scaling.factor = given(c.factor)
    scaling.originalLength = c.original_length == 0 ? nil : Int(c.original_length)
    scaling.attentionFactor = given(c.attention_factor)
    scaling.mscale = given(c.mscale)
    scaling.mscaleAllDim = given(c.mscale_all_dim)
    scaling.betaFast = given(c.beta_fast) ?? scaling.betaFast
    scaling.betaSlow = given(c.beta_slow) ?? scaling.betaSlow
    scaling.lowFrequencyFactor = given(c.low_freq_factor) ?? scaling.lowFrequencyFactor
    scaling.highFrequencyFactor = given(c.high_freq_factor) ?? scaling.highFrequencyFactor
    scaling.truncates = c.no_truncate == 0
    if let factors = try optionalTensor(c.short_factors, "short_factors") {
        scaling.shortFactors = try factors.doubles("short_factors")
    }
    if let factors = try optionalTensor(c.long_factors, "long_factors") {
        scaling.longFactors = try factors.doubles("long_factors")
    }
    return (given(c.base) ?? 10000, scaling)
}
