/// Layers and stacks of chapter "Blocks" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

func layerOptions(_ pointer: UnsafePointer<swiftattn_layer_options>?) throws(Failure) -> LayerOptions {
    try layerOptions(SwiftAttnExports.options(pointer, smallest: MemoryLayout<swiftattn_layer_options>.size))
}

func layerOptions(_ c: swiftattn_layer_options) throws(Failure) -> LayerOptions {
    guard c.flags <= 7 else { throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_LAYER_*, got \(c.flags)") }
    var result = LayerOptions(width: Int(c.d_model), heads: Int(c.nhead))
    result.keyValueHeads = c.num_kv_heads == 0 ? nil : Int(c.num_kv_heads)
    if c.dim_feedforward != 0 { result.inner = Int(c.dim_feedforward) }
    if c.flags & SWIFTATTN_LAYER_HAS_EPS != 0 { result.eps = c.eps }
    result.activation = try enumeration(c.activation, "activation", "SWIFTATTN_FEED_FORWARD_*")
    result.norm = try enumeration(c.norm, "norm", "SWIFTATTN_NORM_LAYER or RMS")
    result.normFirst = c.flags & SWIFTATTN_LAYER_NORM_FIRST != 0
    result.hasBias = c.flags & SWIFTATTN_LAYER_NO_BIAS == 0
    result.positions = try enumeration(c.positions, "positions", "SWIFTATTN_POSITIONS_NONE, ROPE or ALIBI")
    result.precision = try enumeration(c.precision, "precision", "SWIFTATTN_PRECISION_HIGHEST, HIGH or MEDIUM")
    result.dtype = try parameterDType(c.dtype)
    result.dropout = c.dropout
    return result
}

/// A stack's final norm.
func finalNorm(_ value: Int32) throws(Failure) -> NormKind? {
    value == SWIFTATTN_NORM_NONE ? nil : try enumeration(value, "final_norm", "SWIFTATTN_NORM_LAYER, RMS or NONE")
}

@_cdecl("swiftattn_encoder_layer_create")
public func swiftattn_encoder_layer_create(_ options: UnsafePointer<swiftattn_layer_options>?,
                                           _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in try Encoder(layer: layerOptions(options)) }
}

@_cdecl("swiftattn_encoder_create")
public func swiftattn_encoder_create(_ options: UnsafePointer<swiftattn_layer_options>?, _ num_layers: Int64, _ final_norm: Int32,
                                     _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in
        try Encoder(layerOptions(options), layers: Int(num_layers), norm: finalNorm(final_norm))
    }
}

@_cdecl("swiftattn_decoder_layer_create")
public func swiftattn_decoder_layer_create(_ options: UnsafePointer<swiftattn_layer_options>?,
                                           _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in try Decoder(layer: layerOptions(options)) }
}

@_cdecl("swiftattn_decoder_create")
public func swiftattn_decoder_create(_ options: UnsafePointer<swiftattn_layer_options>?, _ num_layers: Int64, _ final_norm: Int32,
                                     _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in
        try Decoder(layerOptions(options), layers: Int(num_layers), norm: finalNorm(final_norm))
    }
}

@_cdecl("swiftattn_transformer_create")
public func swiftattn_transformer_create(_ options: UnsafePointer<swiftattn_layer_options>?, _ num_encoder_layers: Int64,
                                         _ num_decoder_layers: Int64, _ module: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    create(module) { () throws(Failure) in
        try Transformer(layerOptions(options), encoderLayers: Int(num_encoder_layers), decoderLayers: Int(num_decoder_layers))
    }
}

func layerCall(_ pointer: UnsafePointer<swiftattn_layer_call>?) throws(Failure) -> LayerCall {
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_layer_call>.size)
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    var result = LayerCall()
    result.visibility = try visibility(c.visibility)
    result.memoryVisibility = try visibility(c.memory)
    result.sourceVisibility = try visibility(c.src)
    result.starts = try optionalTensor(c.cu_seqlens, "cu_seqlens")
    result.memoryStarts = try optionalTensor(c.memory_cu_seqlens, "memory_cu_seqlens")
    return result
}

@_cdecl("swiftattn_encoder_forward")
public func swiftattn_encoder_forward(
    _ module: OpaquePointer?, _ x: TensorPointer?, _ call: UnsafePointer<swiftattn_layer_call>?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.module(module, Encoder.self, "an encoder or its layer")
            .forward(tensor(x, "x"), layerCall(call), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_decoder_forward")
public func swiftattn_decoder_forward(
    _ module: OpaquePointer?, _ tgt: TensorPointer?, _ memory: TensorPointer?, _ call: UnsafePointer<swiftattn_layer_call>?,
    _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.module(module, Decoder.self, "a decoder or its layer")
            .forward(tensor(tgt, "tgt"), memory: tensor(memory, "memory"), layerCall(call), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_transformer_forward")
public func swiftattn_transformer_forward(
    _ module: OpaquePointer?, _ src: TensorPointer?, _ tgt: TensorPointer?, _ call: UnsafePointer<swiftattn_layer_call>?,
    _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.module(module, Transformer.self, "a transformer")
            .forward(source: tensor(src, "src"), target: tensor(tgt, "tgt"), layerCall(call), out: tensor(out, "out"))
    }
}
