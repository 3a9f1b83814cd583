/* Dropout of a row by number: element i of the tensor is dropped by word i & 3 of counter (i >> 2, draw). */

#define DROP_COUNTERS 16 /* worked on side by side */

/* words[4 * i + w] of the counters first + i. Philox4x32-10, Salmon et al. 2011. */
WORD void drop_words(uint64_t seed, uint64_t draw, uint64_t first, uint32_t words[4 * DROP_COUNTERS]) {
  uint32_t c[4][DROP_COUNTERS], k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int i = 0; i < DROP_COUNTERS; i++) {
    c[0][i] = (uint32_t)(first + (uint64_t)i);
    c[1][i] = (uint32_t)((first + (uint64_t)i) >> 32);
    c[2][i] = (uint32_t)draw;
    c[3][i] = (uint32_t)(draw >> 32);
  }
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int i = 0; i < DROP_COUNTERS; i++) {
      const uint64_t a = (uint64_t)0xD2511F53u * c[0][i], b = (uint64_t)0xCD9E8D57u * c[2][i];
      c[0][i] = (uint32_t)(b >> 32) ^ c[1][i] ^ k0;
      c[1][i] = (uint32_t)b;
      c[2][i] = (uint32_t)(a >> 32) ^ c[3][i] ^ k1;
      c[3][i] = (uint32_t)a;
    }
  for (int i = 0; i < DROP_COUNTERS; i++)
    for (int w = 0; w < 4; w++) words[4 * i + w] = c[w][i];
}

/* Elements [first, first + n) of a tensor; x and out lie at their columns' strides. out may be x. */
static void dropout_row(const attn_dropout *drop, int64_t first, int64_t n, const void *x, int64_t x_column, void *out,
                        int64_t out_column) {
  const int block = 4 * DROP_COUNTERS;
  const int64_t size = (int64_t)attn_dtype_size(drop->dtype);
  const real scale = (real)drop->scale;
  real piece[4 * DROP_COUNTERS];
  uint32_t words[4 * DROP_COUNTERS];
  for (int64_t i = first; i < first + n;) {
    const int64_t begin = i / block * block, end = begin + block < first + n ? begin + block : first + n;
    drop_words(drop->seed, drop->draw, (uint64_t)begin / 4, words);
    load_row(drop->dtype, (const char *)x + (i - first) * x_column * size, x_column, end - i, piece);
    for (int64_t j = 0; j < end - i; j++) piece[j] = words[i - begin + j] < drop->threshold ? 0 : piece[j] * scale;
    store_row(drop->dtype, piece, end - i, (char *)out + (i - first) * out_column * size, out_column);
    i = end;
  }
}
