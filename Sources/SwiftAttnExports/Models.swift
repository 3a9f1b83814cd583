/// Chapter "Language models" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private func model(_ pointer: OpaquePointer?) throws(Failure) -> LlamaModel {
    try object(pointer, LlamaModel.self, "model", "a model")
}

private func modelOptions(_ pointer: UnsafePointer<swiftattn_model_options>?) throws(Failure) -> ModelOptions {
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_model_options>.size)
    func given(_ number: Int64) -> Int? { number == 0 ? nil : Int(number) }
    var result = ModelOptions()
    result.storage = try enumeration(c.weights, "weights", "SWIFTATTN_MODEL_WEIGHTS_STORED or FLOAT32")
    result.context = given(c.context)
    result.sequences = given(c.sequences) ?? 1
    result.window = given(c.window)
    guard c.exact_prefill == 0 || c.exact_prefill == 1 else {
        throw Failure(.invalidArgument, "exact_prefill: expected 0 or 1, got \(c.exact_prefill)")
    }
    result.hasExactPrefill = c.exact_prefill == 1
    result.cacheDType = try storageDType(c.kv_dtype, "kv_dtype")
    return result
}

private func config(_ pointer: UnsafePointer<swiftattn_model_config>?) throws(Failure) -> LlamaConfig {
    guard pointer != nil else { throw Failure(.nullPointer, "config: is NULL, expected the sizes of the model") }
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_model_config>.size)
    var result = LlamaConfig()
    result.vocabulary = Int(c.vocabulary)
    result.width = Int(c.width)
    result.layers = Int(c.layers)
    result.heads = Int(c.heads)
    result.kvHeads = Int(c.kv_heads)
    result.headDim = c.head_dim == 0 && c.heads > 0 ? Int(c.width / c.heads) : Int(c.head_dim)
    result.hidden = Int(c.hidden)
    result.context = Int(c.context)
    result.rotaryDim = c.rotary_dim == 0 ? result.headDim : Int(c.rotary_dim)
    result.normEps = c.norm_eps
    (result.rotaryBase, result.rotaryScaling) = try rotaryOptions(c.rotary)
    result.rotaryPairing = try enumeration(c.rotary_pairing, "rotary_pairing", "SWIFTATTN_ROTARY_HALVES or NEIGHBOURS")
    return result
}

@_cdecl("swiftattn_model_open")
public func swiftattn_model_open(
    _ path: UnsafePointer<CChar>?, _ options: UnsafePointer<swiftattn_model_options>?,
    _ model: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    status { () throws(Failure) in
        let result = try place(model, "model")
        result.pointee = try handle(LlamaModel(path: SwiftAttnExports.path(path), options: modelOptions(options)))
    }
}

@_cdecl("swiftattn_model_create")
public func swiftattn_model_create(
    _ config: UnsafePointer<swiftattn_model_config>?, _ names: UnsafePointer<UnsafePointer<CChar>?>?, _ tensors: TensorPointer?,
    _ count: Int64, _ options: UnsafePointer<swiftattn_model_options>?, _ model: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    status { () throws(Failure) in
        let result = try place(model, "model")
        guard let names, let tensors else { throw Failure(.nullPointer, "tensors: names or tensors are NULL, expected \(count)") }
        guard (1...1 << 24).contains(count) else { throw Failure(.invalidArgument, "count: expected 1 to 2^24, got \(count)") }
        var named: [String: Tensor] = [:]
        for n in 0..<Int(count) {
            guard let name = names[n] else { throw Failure(.nullPointer, "names[\(n)]: is NULL, expected a name") }
            do throws(Failure) {
                named[String(cString: name)] = try tensor(tensors + n, "tensors")
            } catch {
                throw error.ofPart(n)
            }
        }
        result.pointee = try handle(LlamaModel(SwiftAttnExports.config(config), tensors: named, options: modelOptions(options)))
    }
}

@_cdecl("swiftattn_model_close")
public func swiftattn_model_close(_ model: OpaquePointer?) {
    release(model, LlamaModel.self)
}

@_cdecl("swiftattn_model_info")
public func swiftattn_model_info(
    _ model: OpaquePointer?, _ config: UnsafeMutablePointer<swiftattn_model_config>?, _ context: UnsafeMutablePointer<Int64>?,
    _ sequences: UnsafeMutablePointer<Int64>?, _ window: UnsafeMutablePointer<Int64>?
) -> Int32 {
    status { () throws(Failure) in
        let model = try SwiftAttnExports.model(model), sizes = model.config
        context?.pointee = Int64(model.context)
        sequences?.pointee = Int64(model.sequences)
        window?.pointee = Int64(model.window ?? 0)
        config?.pointee = swiftattn_model_config(
            struct_size: UInt32(MemoryLayout<swiftattn_model_config>.size), rotary_pairing: sizes.rotaryPairing.rawValue,
            vocabulary: Int64(sizes.vocabulary), width: Int64(sizes.width), layers: Int64(sizes.layers),
            heads: Int64(sizes.heads), kv_heads: Int64(sizes.kvHeads), head_dim: Int64(sizes.headDim),
            hidden: Int64(sizes.hidden), context: Int64(sizes.context), rotary_dim: Int64(sizes.rotaryDim),
            norm_eps: sizes.normEps, rotary: nil)
    }
}

@_cdecl("swiftattn_model_prefill")
public func swiftattn_model_prefill(
    _ model: OpaquePointer?, _ sequence: Int64, _ ids: TensorPointer?, _ logits: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.model(model).prefill(Int(sequence), tensor(ids, "ids").integers("ids"),
                                                  logits: optionalTensor(logits, "logits"))
    }
}

@_cdecl("swiftattn_model_step")
public func swiftattn_model_step(_ model: OpaquePointer?, _ ids: TensorPointer?, _ logits: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.model(model).step(tensor(ids, "ids").integers("ids"), logits: optionalTensor(logits, "logits"))
    }
}

@_cdecl("swiftattn_model_truncate")
public func swiftattn_model_truncate(_ model: OpaquePointer?, _ sequence: Int64, _ length: Int64) -> Int32 {
    status { () throws(Failure) in try SwiftAttnExports.model(model).truncate(Int(sequence), to: Int(length)) }
}

@_cdecl("swiftattn_model_lengths")
public func swiftattn_model_lengths(_ model: OpaquePointer?, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try SwiftAttnExports.model(model).lengths(into: tensor(out, "out")) }
}

@_cdecl("swiftattn_model_logits")
public func swiftattn_model_logits(_ model: OpaquePointer?, _ ids: TensorPointer?, _ logits: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.model(model).logits(of: tensor(ids, "ids").integers("ids"), out: tensor(logits, "logits"))
    }
}

@_cdecl("swiftattn_model_log_probabilities")
public func swiftattn_model_log_probabilities(_ model: OpaquePointer?, _ ids: TensorPointer?, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.model(model).logProbabilities(of: tensor(ids, "ids").integers("ids"), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_model_perplexity")
public func swiftattn_model_perplexity(
    _ model: OpaquePointer?, _ ids: TensorPointer?, _ perplexity: UnsafeMutablePointer<Double>?
) -> Int32 {
    status { () throws(Failure) in
        let result = try place(perplexity, "perplexity")
        result.pointee = try SwiftAttnExports.model(model).perplexity(of: tensor(ids, "ids").integers("ids"))
    }
}

@_cdecl("swiftattn_model_embed")
public func swiftattn_model_embed(_ model: OpaquePointer?, _ ids: TensorPointer?, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.model(model).embed(tensor(ids, "ids").integers("ids"), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_model_trace")
public func swiftattn_model_trace(
    _ model: OpaquePointer?, _ ids: TensorPointer?, _ attention: TensorPointer?, _ states: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try SwiftAttnExports.model(model).trace(tensor(ids, "ids").integers("ids"),
                                                attention: optionalTensor(attention, "attention"),
                                                states: optionalTensor(states, "states"))
    }
}
