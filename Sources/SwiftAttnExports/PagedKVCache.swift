/// The part on blocks of the chapter "Key/value caches" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private func pagedCache(_ pointer: OpaquePointer?) throws(Failure) -> PagedKVCache {
    try object(pointer, PagedKVCache.self, "cache", "a cache")
}

@_cdecl("swiftattn_paged_kv_cache_create")
public func swiftattn_paged_kv_cache_create(
    _ options: UnsafePointer<swiftattn_paged_kv_cache_options>?, _ cache: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    status { () throws(Failure) in
        guard let cache else { throw Failure(.nullPointer, "cache: is NULL, expected a place for the handle") }
        guard options != nil else { throw Failure(.nullPointer, "options: is NULL, expected the sizes of the cache") }
        let c = try SwiftAttnExports.options(options, smallest: MemoryLayout<swiftattn_paged_kv_cache_options>.size)
        let storage = try CacheStorage(flags: c.flags, valueDim: c.value_dim, dtype: c.dtype, reserved: c.reserved)
        cache.pointee = try handle(PagedKVCache(
            blocks: Int(c.num_blocks), blockSize: Int(c.block_size), kvHeads: Int(c.kv_heads), headDim: Int(c.head_dim),
            valueDim: storage.valueDim, dtype: storage.dtype))
    }
}

@_cdecl("swiftattn_paged_kv_cache_destroy")
public func swiftattn_paged_kv_cache_destroy(_ cache: OpaquePointer?) {
    release(cache, PagedKVCache.self)
}

@_cdecl("swiftattn_paged_kv_cache_open")
public func swiftattn_paged_kv_cache_open(_ cache: OpaquePointer?, _ sequence: UnsafeMutablePointer<Int64>?) -> Int32 {
    status { () throws(Failure) in
        guard let sequence else { throw Failure(.nullPointer, "sequence: is NULL, expected a place for the number") }
        sequence.pointee = try Int64(pagedCache(cache).open())
    }
}

@_cdecl("swiftattn_paged_kv_cache_fork")
public func swiftattn_paged_kv_cache_fork(
    _ cache: OpaquePointer?, _ sequence: Int64, _ length: Int64, _ fork: UnsafeMutablePointer<Int64>?
) -> Int32 {
    status { () throws(Failure) in
        guard let fork else { throw Failure(.nullPointer, "fork: is NULL, expected a place for the number") }
        fork.pointee = try Int64(pagedCache(cache).fork(Int(sequence), length: length == -1 ? nil : Int(length)))
    }
}

@_cdecl("swiftattn_paged_kv_cache_close")
public func swiftattn_paged_kv_cache_close(_ cache: OpaquePointer?, _ sequence: Int64) -> Int32 {
    status { () throws(Failure) in try pagedCache(cache).close(Int(sequence)) }
}

@_cdecl("swiftattn_paged_kv_cache_truncate")
public func swiftattn_paged_kv_cache_truncate(_ cache: OpaquePointer?, _ sequence: Int64, _ length: Int64) -> Int32 {
    status { () throws(Failure) in try pagedCache(cache).truncate(Int(sequence), to: Int(length)) }
}

@_cdecl("swiftattn_paged_kv_cache_append")
public func swiftattn_paged_kv_cache_append(
    _ cache: OpaquePointer?, _ sequences: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ lengths: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try pagedCache(cache).append(
            tensor(sequences, "sequences").integers("sequences"), key: tensor(key, "key"), value: tensor(value, "value"),
            lengths: optionalTensor(lengths, "lengths")?.integers("lengths"))
    }
}

@_cdecl("swiftattn_paged_kv_cache_table")
public func swiftattn_paged_kv_cache_table(
    _ cache: OpaquePointer?, _ sequences: TensorPointer?, _ block_table: TensorPointer?, _ lengths: TensorPointer?,
    _ free_blocks: UnsafeMutablePointer<Int64>?
) -> Int32 {
    status { () throws(Failure) in
        let cache = try pagedCache(cache)
        try cache.describe(tensor(sequences, "sequences").integers("sequences"),
                           blockTable: optionalTensor(block_table, "block_table"), lengths: optionalTensor(lengths, "lengths"))
        free_blocks?.pointee = Int64(cache.freeBlocks)
    }
}

@_cdecl("swiftattn_paged_kv_cache_view")
public func swiftattn_paged_kv_cache_view(
    _ cache: OpaquePointer?, _ keys: UnsafeMutablePointer<swiftattn_tensor>?,
    _ values: UnsafeMutablePointer<swiftattn_tensor>?, _ key_scales: UnsafeMutablePointer<swiftattn_tensor>?,
    _ value_scales: UnsafeMutablePointer<swiftattn_tensor>?
) -> Int32 {
    status { () throws(Failure) in
        let cache = try pagedCache(cache)
        keys?.pointee = description(of: cache.keys)
        values?.pointee = description(of: cache.values)
        key_scales?.pointee = description(of: cache.keyScales)
        value_scales?.pointee = description(of: cache.valueScales)
    }
}

@_cdecl("swiftattn_attention_paged_kv_cache")
public func swiftattn_attention_paged_kv_cache(
    _ query: TensorPointer?, _ cache: OpaquePointer?, _ sequences: TensorPointer?,
    _ options: UnsafePointer<swiftattn_attention_options>?,
    _ out: TensorPointer?, _ lse: TensorPointer?, _ weights: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try attentionPaged(
            query: tensor(query, "query"), cache: pagedCache(cache),
            sequences: tensor(sequences, "sequences").integers("sequences"), options: attentionOptions(options),
            out: tensor(out, "out"), lse: optionalTensor(lse, "lse"), weights: optionalTensor(weights, "weights"))
    }
}
