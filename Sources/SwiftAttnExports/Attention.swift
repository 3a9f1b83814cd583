/// Chapter "Attention" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

public typealias TensorPointer = UnsafePointer<swiftattn_tensor>

private let attentionOptionsV1 = MemoryLayout<swiftattn_attention_options>.size

func attentionOptions(_ pointer: UnsafePointer<swiftattn_attention_options>?) throws(Failure) -> AttentionOptions {
    guard let pointer else { return AttentionOptions() }
    let c = try options(pointer, smallest: attentionOptionsV1)
    func has(_ flag: UInt32) -> Bool { c.flags & flag != 0 }
    let known = SWIFTATTN_ATTENTION_HAS_SCALE | SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET
        | SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT | SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT
    guard c.flags & ~known == 0 else {
        throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_ATTENTION_HAS_*, got \(c.flags)")
    }
    guard c.reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(c.reserved)") }
    var result = AttentionOptions()
    if has(SWIFTATTN_ATTENTION_HAS_SCALE) { result.scale = c.scale }
    result.softcap = c.softcap
    result.causal = try enumeration(c.causal, "causal", "SWIFTATTN_CAUSAL_NONE, UPPER_LEFT or LOWER_RIGHT")
    result.precision = try enumeration(c.precision, "precision", "SWIFTATTN_PRECISION_HIGHEST, HIGH or MEDIUM")
    if has(SWIFTATTN_ATTENTION_HAS_QUERY_OFFSET) { result.queryOffset = Int(c.query_offset) }
    if has(SWIFTATTN_ATTENTION_HAS_WINDOW_LEFT) { result.windowLeft = Int(c.window_left) }
    if has(SWIFTATTN_ATTENTION_HAS_WINDOW_RIGHT) { result.windowRight = Int(c.window_right) }
    result.dropoutP = c.dropout_p
    result.seed = c.seed
    result.queryOffsets = try optionalTensor(c.query_offsets, "query_offsets")
    result.mask = try optionalTensor(c.attn_mask, "attn_mask")
    result.alibiSlopes = try optionalTensor(c.alibi_slopes, "alibi_slopes")
    result.sinks = try optionalTensor(c.sinks, "sinks")
    result.queryLengths = try optionalTensor(c.q_lengths, "q_lengths")
    result.keyValueLengths = try optionalTensor(c.kv_lengths, "kv_lengths")
    result.weightsStage = try enumeration(c.weights_stage, "weights_stage", "SWIFTATTN_WEIGHTS_*")
    return result
}

@_cdecl("swiftattn_scaled_dot_product_attention")
public func swiftattn_scaled_dot_product_attention(
    _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ options: UnsafePointer<swiftattn_attention_options>?,
    _ out: TensorPointer?, _ lse: TensorPointer?, _ weights: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try scaledDotProductAttention(
            query: tensor(query, "query"), key: tensor(key, "key"), value: tensor(value, "value"),
            options: attentionOptions(options),
            out: tensor(out, "out"), lse: optionalTensor(lse, "lse"), weights: optionalTensor(weights, "weights"))
    }
}

@_cdecl("swiftattn_attention_varlen")
public func swiftattn_attention_varlen(
    _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ cu_seqlens_q: TensorPointer?, _ cu_seqlens_k: TensorPointer?,
    _ options: UnsafePointer<swiftattn_attention_options>?,
    _ out: TensorPointer?, _ lse: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try attentionVarlen(
            query: tensor(query, "query"), key: tensor(key, "key"), value: tensor(value, "value"),
            cumulativeQueries: tensor(cu_seqlens_q, "cu_seqlens_q"), cumulativeKeys: tensor(cu_seqlens_k, "cu_seqlens_k"),
            options: attentionOptions(options), out: tensor(out, "out"), lse: optionalTensor(lse, "lse"))
    }
}

@_cdecl("swiftattn_attention_paged")
public func swiftattn_attention_paged(
    _ query: TensorPointer?, _ key_cache: TensorPointer?, _ value_cache: TensorPointer?,
    _ block_table: TensorPointer?, _ kv_lengths: TensorPointer?,
    _ options: UnsafePointer<swiftattn_attention_options>?,
    _ out: TensorPointer?, _ lse: TensorPointer?, _ weights: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try attentionPaged(
            query: tensor(query, "query"), keyCache: tensor(key_cache, "key_cache"),
            valueCache: tensor(value_cache, "value_cache"), blockTable: tensor(block_table, "block_table"),
            keyValueLengths: tensor(kv_lengths, "kv_lengths"), options: attentionOptions(options),
            out: tensor(out, "out"), lse: optionalTensor(lse, "lse"), weights: optionalTensor(weights, "weights"))
    }
}

/// The `count` tensors of an array.
private func tensors(_ pointer: TensorPointer?, _ count: Int64, _ name: StaticString) throws(Failure) -> [Tensor] {
    guard let pointer else { throw Failure(.nullPointer, "\(name): is NULL, expected \(count) tensors") }
    guard count > 0 else { throw Failure(.invalidArgument, "count: expected at least 1, got \(count)") }
    var result: [Tensor] = []
    for n in 0..<Int(count) {
        do {
            try result.append(tensor(pointer + n, name))
        } catch {
            throw error.ofPart(n)
        }
    }
    return result
}

@_cdecl("swiftattn_merge_attention_states")
public func swiftattn_merge_attention_states(
    _ outs: TensorPointer?, _ lses: TensorPointer?, _ count: Int64, _ out: TensorPointer?, _ lse: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try mergeAttentionStates(outs: tensors(outs, count, "outs"), lses: tensors(lses, count, "lses"),
                                 out: tensor(out, "out"), lse: tensor(lse, "lse"))
    }
}

@_cdecl("swiftattn_alibi_slopes")
public func swiftattn_alibi_slopes(_ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try alibiSlopes(out: tensor(out, "out")) }
}
