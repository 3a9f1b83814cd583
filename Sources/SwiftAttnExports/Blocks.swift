/// Chapter "Blocks" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

/// What a swiftattn_module points to.
final class ModuleHandle {
    let module: Module
    let parameters: NamedParameters

    init(_ module: Module) {
        self.module = module
        parameters = NamedParameters(module.parameters)
    }

    static func of(_ pointer: OpaquePointer?) throws(Failure) -> ModuleHandle {
        try object(pointer, ModuleHandle.self, "module", "a module")
    }
}

/// The module behind a handle, as the kind that a function takes.
func module<M: Module>(_ pointer: OpaquePointer?, _ kind: M.Type, _ expected: StaticString) throws(Failure) -> M {
    guard let result = try ModuleHandle.of(pointer).module as? M else {
        throw Failure(.invalidArgument, "module: is of another kind, expected \(expected)")
    }
    return result
}

/// Puts a handle of the module that `make` returns into `place`.
func create(_ place: UnsafeMutablePointer<OpaquePointer?>?, _ make: () throws(Failure) -> Module) -> Int32 {
    status { () throws(Failure) in
        guard let place else { throw Failure(.nullPointer, "module: is NULL, expected a place for the handle") }
        place.pointee = handle(ModuleHandle(try make()))
    }
}

@_cdecl("swiftattn_module_destroy")
public func swiftattn_module_destroy(_ module: OpaquePointer?) {
    release(module, ModuleHandle.self)
}

@_cdecl("swiftattn_module_parameter_count")
public func swiftattn_module_parameter_count(_ module: OpaquePointer?, _ count: UnsafeMutablePointer<Int64>?) -> Int32 {
    status { () throws(Failure) in
        guard let count else { throw Failure(.nullPointer, "count: is NULL, expected a place for the number") }
        count.pointee = Int64(try ModuleHandle.of(module).parameters.count)
    }
}

@_cdecl("swiftattn_module_parameter")
public func swiftattn_module_parameter(
    _ module: OpaquePointer?, _ index: Int64, _ name: UnsafeMutablePointer<UnsafePointer<CChar>?>?,
    _ parameter: UnsafeMutablePointer<swiftattn_tensor>?
) -> Int32 {
    status { () throws(Failure) in
        try ModuleHandle.of(module).parameters.describe(index, name, parameter, "parameter")
    }
}

@_cdecl("swiftattn_module_load_parameter")
public func swiftattn_module_load_parameter(_ module: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ source: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        let handle = try ModuleHandle.of(module)
        guard let name else { throw Failure(.nullPointer, "name: is NULL, expected a parameter's name") }
        try handle.module.load(String(cString: name), from: tensor(source, "source"))
    }
}

@_cdecl("swiftattn_module_parameters_changed")
public func swiftattn_module_parameters_changed(_ module: OpaquePointer?) -> Int32 {
    status { () throws(Failure) in try ModuleHandle.of(module).module.parametersChanged() }
}

@_cdecl("swiftattn_multihead_attention_create")
public func swiftattn_multihead_attention_create(
    _ options: UnsafePointer<swiftattn_multihead_attention_options>?, _ module: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    create(module) { () throws(Failure) in try MultiheadAttention(multiheadAttentionOptions(options)) }
}

private func multiheadAttentionOptions(_ pointer: UnsafePointer<swiftattn_multihead_attention_options>?) throws(Failure)
    -> MultiheadAttentionOptions {
    typealias C = swiftattn_multihead_attention_options
    let c = try SwiftAttnExports.options(pointer, smallest: MemoryLayout<C>.size)
    guard c.flags <= 31 else {
        throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_MULTIHEAD_*, got \(c.flags)")
    }
    func has(_ bit: UInt32) -> Bool { c.flags & bit != 0 }
    var result = MultiheadAttentionOptions(embedDim: Int(c.embed_dim), heads: Int(c.num_heads))
    result.keyValueHeads = c.num_kv_heads == 0 ? nil : Int(c.num_kv_heads)
    result.keyDim = c.kdim == 0 ? nil : Int(c.kdim)
    result.valueDim = c.vdim == 0 ? nil : Int(c.vdim)
    result.hasBias = !has(SWIFTATTN_MULTIHEAD_NO_BIAS)
    result.hasOutputProjection = !has(SWIFTATTN_MULTIHEAD_NO_OUTPUT_PROJECTION)
    result.addsBiasKeyValue = has(SWIFTATTN_MULTIHEAD_ADD_BIAS_KV)
    result.addsZeroAttention = has(SWIFTATTN_MULTIHEAD_ADD_ZERO_ATTN)
    if has(SWIFTATTN_MULTIHEAD_HAS_SCALE) { result.scale = c.scale }
    result.positions = try enumeration(c.positions, "positions", "SWIFTATTN_POSITIONS_NONE, ROPE or ALIBI")
    result.precision = try enumeration(c.precision, "precision", "SWIFTATTN_PRECISION_HIGHEST, HIGH or MEDIUM")
    result.dtype = try parameterDType(c.dtype)
    result.dropout = c.dropout
    return result
}

/// The dtype field of a block's options; zeros are float32.
func parameterDType(_ c: swiftattn_dtype) throws(Failure) -> DType {
    c.code == 0 && c.bits == 0 && c.lanes == 0 ? .float32 : try dtype(c, "dtype")
}

func visibility(_ c: swiftattn_visibility) throws(Failure) -> Visibility {
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    return Visibility(attentionMask: try optionalTensor(c.attn_mask, "attn_mask"),
                      keyPaddingMask: try optionalTensor(c.key_padding_mask, "key_padding_mask"), isCausal: c.is_causal != 0)
}

/// Both offsets of packed sequences, or neither.
func starts(_ queries: TensorPointer?, _ keys: TensorPointer?) throws(Failure) -> Starts? {
    let queries = try optionalTensor(queries, "cu_seqlens_q"), keys = try optionalTensor(keys, "cu_seqlens_k")
    switch (queries, keys) {
    case (nil, nil): return nil
    case (let queries?, let keys?): return Starts(queries: queries, keys: keys)
    case (nil, _): throw Failure(.nullPointer, "cu_seqlens_q: is NULL, expected a tensor beside cu_seqlens_k")
    case (_, nil): throw Failure(.nullPointer, "cu_seqlens_k: is NULL, expected a tensor beside cu_seqlens_q")
    }
}

@_cdecl("swiftattn_multihead_attention_forward")
public func swiftattn_multihead_attention_forward(
    _ module: OpaquePointer?, _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ call: UnsafePointer<swiftattn_multihead_attention_call>?, _ out: TensorPointer?, _ weights: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let attention = try SwiftAttnExports.module(module, MultiheadAttention.self, "a multi-head attention")
        let c = try options(call, smallest: MemoryLayout<swiftattn_multihead_attention_call>.size)
        var call = MultiheadAttentionCall()
        call.visibility = try visibility(c.visibility)
        call.starts = try starts(c.cu_seqlens_q, c.cu_seqlens_k)
        call.averagesWeights = c.average_weights != 0
        try attention.forward(query: tensor(query, "query"), key: tensor(key, "key"), value: tensor(value, "value"), call,
                              out: tensor(out, "out"), weights: optionalTensor(weights, "weights"))
    }
}
