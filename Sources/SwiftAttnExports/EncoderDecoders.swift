/// Encoder-decoders of chapter "Blocks" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_encoder_decoder_create")
public func swiftattn_encoder_decoder_create(_ options: UnsafePointer<swiftattn_encoder_decoder_options>?,
                                             _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in try EncoderDecoder(encoderDecoderOptions(options)) }
}

private func encoderDecoderOptions(_ pointer: UnsafePointer<swiftattn_encoder_decoder_options>?) throws(Failure)
    -> EncoderDecoderOptions {
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_encoder_decoder_options>.size)
    guard c.flags <= 7 else {
        throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_ENCODER_DECODER_*, got \(c.flags)")
    }
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    guard let layer = c.layer else { throw Failure(.nullPointer, "layer: is NULL, expected options of the layers") }
    var source = TokenEmbeddingOptions(vocabulary: Int(c.src_vocab_size))
    source.embeddingDim = c.embedding_dim == 0 ? nil : Int(c.embedding_dim)
    source.positions = try enumeration(c.token_positions, "token_positions", "SWIFTATTN_TOKEN_POSITIONS_*")
    if c.max_positions != 0 { source.maxPositions = Int(c.max_positions) }
    var target = source
    target.vocabulary = Int(c.tgt_vocab_size)
    var result = EncoderDecoderOptions(layer: try layerOptions(layer), encoderLayers: Int(c.num_encoder_layers),
                                       decoderLayers: Int(c.num_decoder_layers), source: source, target: target)
    result.sharesEmbedding = c.flags & SWIFTATTN_ENCODER_DECODER_SHARED_EMBEDDING != 0
    result.tiesHead = c.flags & SWIFTATTN_ENCODER_DECODER_TIED_HEAD != 0
    result.headHasBias = c.flags & SWIFTATTN_ENCODER_DECODER_HEAD_BIAS != 0
    return result
}

@_cdecl("swiftattn_encoder_decoder_forward")
public func swiftattn_encoder_decoder_forward(
    _ module: OpaquePointer?, _ src: TensorPointer?, _ tgt: TensorPointer?, _ call: UnsafePointer<swiftattn_layer_call>?,
    _ out: TensorPointer?, _ attentions: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.module(module, EncoderDecoder.self, "an encoder-decoder")
            .forward(source: tensor(src, "src"), target: tensor(tgt, "tgt"), layerCall(call), out: tensor(out, "out"),
                     weights: optionalTensor(attentions, "attentions"))
    }
}

@_cdecl("swiftattn_encoder_decoder_write")
public func swiftattn_encoder_decoder_write(
    _ module: OpaquePointer?, _ src: TensorPointer?, _ key_padding_mask: TensorPointer?,
    _ options: UnsafePointer<swiftattn_beam_options>?, _ ids: TensorPointer?, _ scores: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let model = try SwiftAttnExports.module(module, EncoderDecoder.self, "an encoder-decoder")
        let c = try SwiftAttnExports.options(options, smallest: MemoryLayout<swiftattn_beam_options>.size)
        guard c.flags <= 1 else {
            throw Failure(.invalidArgument, "flags: expected SWIFTATTN_BEAM_HAS_LENGTH_PENALTY or 0, got \(c.flags)")
        }
        guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
        var beams = BeamOptions(start: Int(c.start), end: Int(c.end), maxLength: 0)
        beams.beams = c.beams == 0 ? 1 : Int(c.beams)
        if c.flags & SWIFTATTN_BEAM_HAS_LENGTH_PENALTY != 0 { beams.lengthPenalty = c.length_penalty }
        try model.write(source: tensor(src, "src"), keyPaddingMask: optionalTensor(key_padding_mask, "key_padding_mask"), beams,
                        ids: tensor(ids, "ids"), scores: optionalTensor(scores, "scores"))
    }
}
