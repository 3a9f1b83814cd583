/// The keys and the values of a cache: two kinds of rows, written together.

import CAttnKernels

/// Row n of the keys and row n of the values belong to one token and one head; which, is the cache's own matter.
struct CacheMemory {
    let keys, values: CacheRows
    private let count: Int

    /// - Throws: `Failure` for a dtype that no cache has, or memory that cannot be had.
    init(_ count: Int, headDim: Int, valueDim: Int, _ dtype: DType) throws(Failure) {
        try CacheMemory.check(dtype, "dtype")
        self.count = count
        let keys = try CacheRows(count, width: headDim, dtype)
        do {
            values = try CacheRows(count, width: valueDim, dtype)
        } catch {
            keys.free()
            throw error
        }
        self.keys = keys
    }

    /// What a cache may store.
    static func check(_ dtype: DType, _ name: StaticString) throws(Failure) {
        guard [.float32, .float16, .bfloat16, .int8].contains(dtype) else {
            throw .dtype("\(name): expected float32, float16, bfloat16 or int8, got \(dtype)")
        }
    }

    func free() {
        keys.free()
        values.free()
    }

    /// Checks what is to be appended: key (B, Hkv, T, D), value (B, Hkv, T, Dv), and how many of the T tokens each entry takes.
    /// The result is those numbers.
    func checked(key: Tensor, value: Tensor, lengths: [Int]?, batch: Int, heads: Int) throws(Failure) -> [Int] {
        try check(key, "key", [batch, heads], keys.width)
        try check(value, "value", [batch, heads], values.width)
        let tokens = key.shape[2]
        guard value.shape[2] == tokens else {
            throw .shape("value: length is \(value.shape[2]), key has \(tokens)")
        }
        for rows in [keys, values] {
            let whole = Output("cache", rows.view([count], rowStrides: [1]))
            try whole?.expectApart(from: key, "key")
            try whole?.expectApart(from: value, "value")
        }
        guard let lengths else { return Array(repeating: tokens, count: batch) }
        guard lengths.count == batch else { throw .shape("lengths: shape is (\(lengths.count),), expected (\(batch),)") }
        for b in 0..<batch where !(0...tokens).contains(lengths[b]) {
            throw .argument("lengths: entry \(b) is \(lengths[b]), expected 0 to \(tokens)")
        }
        return lengths
    }

    private func check(_ new: Tensor, _ name: StaticString, _ leading: [Int], _ width: Int) throws(Failure) {
        try new.checked(name).expect(rank: 4...4, name)
        guard [.float32, .float16, .bfloat16].contains(new.dtype) else {
            throw .dtype("\(name): dtype is \(new.dtype), expected float32, float16 or bfloat16")
        }
        try new.expect(shape: [leading[0], leading[1], new.shape[2], width], name)
    }

    /// Tokens `tokens` of entry b and head h of checked key and value become the rows `first`, `first + step`, ...
    func store(key: Tensor, value: Tensor, _ b: Int, _ h: Int, _ tokens: Range<Int>, at first: Int, step: Int = 1) {
        for (rows, new) in [(keys, key), (values, value)] {
            let offset = b &* new.strides[0] &+ h &* new.strides[1] &+ tokens.lowerBound &* new.strides[2]
            rows.store(new.pointer(byOffset: offset), new.dtype, strides: (new.strides[2], new.strides[3]),
                       count: tokens.count, at: first, step: step)
        }
    }

    /// Rows `first`, `first + 1`, ... become copies of `count` rows of `other`, of the same dtype and widths.
    func copy(_ count: Int, from other: CacheMemory, _ otherFirst: Int, at first: Int) {
        keys.copy(count, from: other.keys, otherFirst, at: first)
        values.copy(count, from: other.values, otherFirst, at: first)
    }
}

/// How many (entry, head) pairs of `elements` elements go to a thread at least.
func cacheGrain(_ elements: Int) -> Int { max(elementsPerRange / max(elements, 1), 1) }
