/// Token models of chapter "Blocks" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_token_model_create")
public func swiftattn_token_model_create(_ options: UnsafePointer<swiftattn_token_model_options>?,
                                         _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in try TokenModel(tokenModelOptions(options)) }
}

private func tokenModelOptions(_ pointer: UnsafePointer<swiftattn_token_model_options>?) throws(Failure) -> TokenModelOptions {
    typealias C = swiftattn_token_model_options
    let c = try options(pointer, smallest: MemoryLayout<C>.size)
    guard c.flags <= 15 else { throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_TOKEN_MODEL_*, got \(c.flags)") }
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    guard let layer = c.layer else { throw Failure(.nullPointer, "layer: is NULL, expected options of the layers") }
    var embedding = TokenEmbeddingOptions(vocabulary: Int(c.vocab_size))
    embedding.embeddingDim = c.embedding_dim == 0 ? nil : Int(c.embedding_dim)
    embedding.positions = try enumeration(c.token_positions, "token_positions", "SWIFTATTN_TOKEN_POSITIONS_*")
    if c.max_positions != 0 { embedding.maxPositions = Int(c.max_positions) }
    embedding.firstPosition = Int(c.first_position)
    embedding.types = Int(c.type_vocab_size)
    embedding.hasNorm = c.flags & SWIFTATTN_TOKEN_MODEL_EMBEDDING_NORM != 0
    var result = TokenModelOptions(layer: try layerOptions(layer), layers: Int(c.num_layers), embedding: embedding)
    result.layer.isAttentionOnly = c.flags & SWIFTATTN_TOKEN_MODEL_ATTENTION_ONLY != 0
    result.sharesLayers = c.flags & SWIFTATTN_TOKEN_MODEL_SHARED_LAYERS != 0
    result.headHasBias = c.flags & SWIFTATTN_TOKEN_MODEL_HEAD_BIAS != 0
    result.finalNorm = try finalNorm(c.final_norm)
    result.head = try enumeration(c.head, "head", "SWIFTATTN_HEAD_*")
    result.classes = Int(c.num_classes)
    return result
}

@_cdecl("swiftattn_token_model_forward")
public func swiftattn_token_model_forward(
    _ module: OpaquePointer?, _ ids: TensorPointer?, _ call: UnsafePointer<swiftattn_token_model_call>?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.module(module, TokenModel.self, "a token model")
            .forward(tensor(ids, "ids"), tokenCall(call), out: tensor(out, "out"))
    }
}

private func tokenCall(_ pointer: UnsafePointer<swiftattn_token_model_call>?) throws(Failure) -> TokenCall {
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_token_model_call>.size)
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    var result = TokenCall()
    result.visibility = try visibility(c.visibility)
    result.starts = try optionalTensor(c.cu_seqlens, "cu_seqlens")
    result.types = try optionalTensor(c.type_ids, "type_ids")
    result.pooling = try enumeration(c.pooling, "pooling", "SWIFTATTN_POOLING_NONE, MEAN or FIRST")
    result.normalizes = c.normalize != 0
    result.hidden = try optionalTensor(c.hidden, "hidden")
    result.weights = try optionalTensor(c.attentions, "attentions")
    return result
}
