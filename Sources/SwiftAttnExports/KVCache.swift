/// Chapter "Key/value caches" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private func kvCache(_ pointer: OpaquePointer?) throws(Failure) -> KVCache {
    try object(pointer, KVCache.self, "cache", "a cache")
}

/// What the options of all caches end with.
struct CacheStorage {
    let valueDim: Int?
    let dtype: DType

    init(flags: UInt32, valueDim: Int64, dtype: swiftattn_dtype, reserved: Int32) throws(Failure) {
        guard flags & ~SWIFTATTN_KV_CACHE_HAS_VALUE_DIM == 0 else {
            throw Failure(.invalidArgument, "flags: expected bits of SWIFTATTN_KV_CACHE_HAS_*, got \(flags)")
        }
        guard reserved == 0 else { throw Failure(.invalidArgument, "reserved: expected 0, got \(reserved)") }
        self.valueDim = flags & SWIFTATTN_KV_CACHE_HAS_VALUE_DIM != 0 ? Int(valueDim) : nil
        self.dtype = try storageDType(dtype, "dtype")
    }
}

/// All zeros: float32.
func storageDType(_ dtype: swiftattn_dtype, _ name: StaticString) throws(Failure) -> DType {
    let isDefault = dtype.code == 0 && dtype.bits == 0 && dtype.lanes == 0
    return isDefault ? .float32 : try SwiftAttnExports.dtype(dtype, name)
}

@_cdecl("swiftattn_kv_cache_create")
public func swiftattn_kv_cache_create(
    _ options: UnsafePointer<swiftattn_kv_cache_options>?, _ cache: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    status { () throws(Failure) in
        guard let cache else { throw Failure(.nullPointer, "cache: is NULL, expected a place for the handle") }
        guard options != nil else { throw Failure(.nullPointer, "options: is NULL, expected the sizes of the cache") }
        let c = try SwiftAttnExports.options(options, smallest: MemoryLayout<swiftattn_kv_cache_options>.size)
        let storage = try CacheStorage(flags: c.flags, valueDim: c.value_dim, dtype: c.dtype, reserved: c.reserved)
        cache.pointee = try handle(KVCache(
            batch: Int(c.batch), kvHeads: Int(c.kv_heads), maxLength: Int(c.max_len), headDim: Int(c.head_dim),
            valueDim: storage.valueDim, dtype: storage.dtype))
    }
}

@_cdecl("swiftattn_kv_cache_destroy")
public func swiftattn_kv_cache_destroy(_ cache: OpaquePointer?) {
    release(cache, KVCache.self)
}

@_cdecl("swiftattn_kv_cache_append")
public func swiftattn_kv_cache_append(
    _ cache: OpaquePointer?, _ key: TensorPointer?, _ value: TensorPointer?, _ lengths: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try kvCache(cache).append(key: tensor(key, "key"), value: tensor(value, "value"),
                                  lengths: optionalTensor(lengths, "lengths")?.integers("lengths"))
    }
}

@_cdecl("swiftattn_kv_cache_truncate")
public func swiftattn_kv_cache_truncate(_ cache: OpaquePointer?, _ length: Int64, _ lengths: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        if let lengths = try optionalTensor(lengths, "lengths") {
            try kvCache(cache).truncate(to: lengths.integers("lengths"))
        } else {
            try kvCache(cache).truncate(to: Int(length))
        }
    }
}

@_cdecl("swiftattn_kv_cache_view")
public func swiftattn_kv_cache_view(
    _ cache: OpaquePointer?, _ keys: UnsafeMutablePointer<swiftattn_tensor>?,
    _ values: UnsafeMutablePointer<swiftattn_tensor>?, _ key_scales: UnsafeMutablePointer<swiftattn_tensor>?,
    _ value_scales: UnsafeMutablePointer<swiftattn_tensor>?, _ lengths: UnsafeMutablePointer<swiftattn_tensor>?
) -> Int32 {
    status { () throws(Failure) in
        let cache = try kvCache(cache)
        keys?.pointee = description(of: cache.keys)
        values?.pointee = description(of: cache.values)
        key_scales?.pointee = description(of: cache.keyScales)
        value_scales?.pointee = description(of: cache.valueScales)
        lengths?.pointee = description(of: cache.lengthsView)
    }
}

@_cdecl("swiftattn_kv_cache_fork")
public func swiftattn_kv_cache_fork(
    _ cache: OpaquePointer?, _ indices: TensorPointer?, _ fork: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    status { () throws(Failure) in
        guard let fork else { throw Failure(.nullPointer, "fork: is NULL, expected a place for the handle") }
        fork.pointee = try handle(kvCache(cache).fork(optionalTensor(indices, "indices")?.integers("indices")))
    }
}

@_cdecl("swiftattn_kv_cache_reorder")
public func swiftattn_kv_cache_reorder(_ cache: OpaquePointer?, _ indices: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try kvCache(cache).reorder(tensor(indices, "indices").integers("indices")) }
}

@_cdecl("swiftattn_attention_kv_cache")
public func swiftattn_attention_kv_cache(
    _ query: TensorPointer?, _ cache: OpaquePointer?, _ options: UnsafePointer<swiftattn_attention_options>?,
    _ out: TensorPointer?, _ lse: TensorPointer?, _ weights: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try attentionKVCache(
            query: tensor(query, "query"), cache: kvCache(cache), options: attentionOptions(options),
            out: tensor(out, "out"), lse: optionalTensor(lse, "lse"), weights: optionalTensor(weights, "weights"))
    }
}
