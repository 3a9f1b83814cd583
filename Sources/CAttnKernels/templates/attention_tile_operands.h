/* What the forward and the backward of attention on tiles share: how a tile is cut, and how its tensors become operands. */

#define GROUP_LANES 256 /* of a tile */
#define GROUP_PARTS 8   /* 7 heads with 33 queries: the worst cut */
#define KEY_STEPS STEPS(KEYS)
#define TURNED_ROW (PARTS * KEY_STEPS * TILE_ROW + (PARTS == 2 ? TILE_ROW : 0)) /* an odd number of lines of the cache */
#define B_ROW ((int64_t)(TILE * sizeof(pair)))
#define REAL_PARTS (PRODUCTS == 4 ? 3 : PARTS) /* of what is computed: a float, where tensors are two bfloat16 */
#define BLOCK_PART (KEY_STEPS * TILE_EDGE * B_ROW) /* of pairs of keys */

static int64_t lines_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static int64_t in_tiles(int64_t count) { return (count + TILE_EDGE - 1) / TILE_EDGE; }
static int64_t vectors_of(int64_t dims) { return (dims + LANES - 1) / LANES; }
static int64_t row_bytes(int64_t dims) { return PARTS * STEPS(dims) * TILE_ROW + TILE_ROW; }
static int64_t lanes_part_bytes(int64_t dims) { return STEPS(dims) * TILE_EDGE * B_ROW; }

/* ---- the cut ---- */

/* The most parts that a tile of this problem can have. */
static int64_t parts_of(const attn_problem *P) { return P->q_heads == P->kv_heads ? GROUP_LANES / TILE : GROUP_PARTS; }

/* Part i of a tile, with at most TILE lanes: whole heads together, or rows of one head. Behind the last: no heads. */
static attn_tile part_of(const attn_tile *T, int64_t i) {
  const int64_t rows = least(T->rows, TILE), heads = least(T->heads, TILE / rows), across = (T->rows + rows - 1) / rows;
  const int64_t head = i / across * heads, row = i % across * rows;
  return (attn_tile){ T->sequence, T->first_head + head, least(heads, T->heads - head), T->first_row + row,
                      least(rows, T->rows - row) };
}

/* ---- operands ---- */

/* Rows x[dims][TILE] in the lanes: [part][pairs of dims][TILE]. hard[v]: lanes with numbers that are hard. */
static void take_lanes(const real *x, int64_t dims, int vecs, const int lowest, char *to, uint32_t *hard) {
  const int64_t bytes = lanes_part_bytes(dims);
  for (int v = 0; v < vecs; v++) {
    lanemask found = {0};
    for (int64_t d = 0; d < STEPS(dims) * TILE_STEP; d += 2) {
      vec low = d < dims ? v_load(x + d * TILE + v * LANES) : (vec){0};
      vec high = d + 1 < dims ? v_load(x + (d + 1) * TILE + v * LANES) : (vec){0};
      found |= v_hard(low, lowest) | v_hard(high, lowest);
      for (int i = 0; i < PARTS; i++)
        v_store((real *)(to + i * bytes + d / 2 * B_ROW + v * TILE_ROW), v_take_pairs(&low, &high));
    }
    hard[v] = PARTS > 1 ? v_bits(found) : 0;
  }
}

/* Rows of keys as a, and which of them have numbers that are hard. */
typedef struct key_operand {
  tile_operand parts;
  bool hard[KEYS], any_hard;
} key_operand;

/* Rows in parts, [key][part][dims], in `to`, or in place where they are that already and `stay` until they are multiplied. */
static void take_rows(lines x, bool stay, int64_t n, int64_t dims, const int lowest, char *to, tile_queue *queue,
                      key_operand *a) {
  const int64_t row = x.row * (int64_t)attn_dtype_size(x.dtype), bytes = row_bytes(dims), part = STEPS(dims) * TILE_ROW;
  a->any_hard = false;
  if (PARTS == 1 && stay && x.dtype == ATTN_BF16 && x.element == 1 && dims % TILE_STEP == 0 && n % TILE_EDGE == 0) {
    a->parts = (tile_operand){ x.first, row, 0 };
    return;
  }
  a->parts = (tile_operand){ to, bytes, part };
  for (int64_t j = 0; j < n; j++) {
    lanemask hard = {0};
    for (int64_t d = 0; d < dims; d += TILE_STEP)
      hard |= take_parts(x.dtype, x.first + j * row, x.element, d, dims, lowest, to + j * bytes + 2 * d, part);
    a->any_hard |= a->hard[j] = PARTS > 1 && v_any(hard);
    keep_busy(queue);
  }
}

/* Numbers that products over all keys or queries leave out, to be added where they are seen. */
WORD lanemask left_out(vec x, const int lowest) { return PARTS > 1 ? v_hard(x, lowest) : v_huge(x); }

/* Rows of keys turned: [dim][part][keys]; what is left out counts as 0 and is marked in apart[KEYS][vectors of dims]. Says
 * whether anything is. */
static bool take_turned(lines x, int64_t n, int64_t dims, const int lowest, char *to, uint16_t *apart, tile_queue *queue) {
  const int64_t size = (int64_t)attn_dtype_size(x.dtype), row = x.row * size, vectors = vectors_of(dims);
  lanemask any = {0};
  for (int64_t j0 = 0; j0 < n; j0 += TILE_STEP)
    for (int64_t d = 0; d < vectors; d++) {
      const int64_t some = least(LANES, dims - d * LANES);
      vec squares[PARTS][LANES];
      for (int t = 0; t < LANES; t++) {
        vec both[2];
        for (int i = 0; i < 2; i++) {
          const int64_t j = j0 + 2 * t + i;
          both[i] = j < n ? load_some(x.dtype, x.first + j * row + d * LANES * x.element * size, x.element, some) : (vec){0};
          const lanemask out = left_out(both[i], lowest);
          any |= out;
          if (j < n) apart[j * vectors + d] = (uint16_t)v_bits(out);
          both[i] = v_select(out, (vec){0}, both[i]);
        }
#pragma clang loop unroll(full)
        for (int i = 0; i < PARTS; i++) squares[i][t] = v_take_pairs(&both[0], &both[1]);
      }
      for (int i = 0; i < PARTS; i++) {
        transpose(squares[i]);
        for (int e = 0; e < LANES; e++)
          v_store((real *)(to + (d * LANES + e) * TURNED_ROW + i * KEY_STEPS * TILE_ROW + j0 * 2), squares[i][e]);
      }
      keep_busy(queue);
    }
  return v_any(any);
}

/* Parts of what is computed for keys j and j + 1, in one vector of lanes: [part][pairs of keys][TILE]. */
WORD void put_pairs(char *to, int64_t j, int v, vec low, vec high) {
#pragma clang loop unroll(full)
  for (int i = 0; i < REAL_PARTS; i++)
    v_store((real *)(to + i * BLOCK_PART + j / 2 * B_ROW + v * TILE_ROW), v_take_pairs(&low, &high));
}

/* 0 from n keys on to the end of the last step. */
static void clear_pairs(char *to, int64_t n, int v) {
  for (int64_t j = (n + 1) / 2 * 2; j < STEPS(n) * TILE_STEP; j += 2) put_pairs(to, j, v, (vec){0}, (vec){0});
}

/* ---- products ---- */

/* s = rows of keys times rows in the lanes, both of `dims`. */
static tile_job product_with_lanes(const key_operand *keys, int64_t n, const char *lanes, int vecs, int64_t dims, real *s) {
  return product_of_tiles(in_tiles(n), vecs, STEPS(dims), keys->parts, (tile_operand){ lanes, B_ROW, lanes_part_bytes(dims) },
                          s, TILE, false);
}

/* o += keys turned times what was computed for them in the lanes; o[dims][TILE]. */
static tile_job product_with_pairs(const char *turned, int64_t n, const char *pairs, int vecs, int64_t dims, real *o) {
  tile_job job = product_of_tiles(in_tiles(dims), vecs, STEPS(n), (tile_operand){ turned, TURNED_ROW, KEY_STEPS * TILE_ROW },
                                  (tile_operand){ pairs, B_ROW, BLOCK_PART }, o, TILE, true);
  job.three = THREE_OF_B;
  return job;
}

/* ---- what is hard, in floats ---- */

static bool some_hard(const key_operand *a, const uint32_t *hard_lanes, int vecs) {
  uint32_t any = a->any_hard;
  for (int v = 0; v < vecs; v++) any |= hard_lanes[v];
  return any != 0;
}

/* s[j] = row[j] . x again, x[dims][TILE], of keys and lanes that are hard. */
static __attribute__((noinline)) void mend_products(const key_operand *a, const operand *const *row, int64_t step, int64_t n,
                                                    int64_t dims, const real *x, const uint32_t *hard_lanes, int vecs,
                                                    real *s) {
  uint32_t any = 0;
  for (int v = 0; v < vecs; v++) any |= hard_lanes[v];
  for (int64_t j = 0; j < n; j++) {
    const bool hard_key = a->any_hard && a->hard[j];
    real again[TILE];
    if (!any && !hard_key) continue;
    for (int64_t d = 0, most = summed(dims); d == 0 || d < dims; d += most) {
      const operand *from = row[j] + d * step;
      product_block(1, vecs, least(dims - d, most), &from, step, x + d * TILE, TILE, again, TILE, d > 0, NULL);
    }
    for (int v = 0; v < vecs; v++) {
      real *to = s + j * TILE + v * LANES;
      v_store(to, v_select(v_lanes_of(hard_key ? 0xffff : hard_lanes[v]), v_load(again + v * LANES), v_load(to)));
    }
  }
}

/* Scores from their products on. */
static void mend_and_finish_scores(work *w, const key_operand *keys, const uint32_t *hard_lanes, int64_t key, int64_t n,
                                   terms until) {
  if (some_hard(keys, hard_lanes, w->vecs)) {
    const operand *row[KEYS];
    const int64_t step = keys_of(w, key, n, row);
    mend_products(keys, row, step, n, w->problem->head_dim, w->q, hard_lanes, w->vecs, w->s);
  }
  finish_scores(w, key, n, until);
}

/* What the gradients leave out: numbers of q, k and d_o, and computed weights that have no parts, as a p of NaN. */
#define HAS_ODD
WORD lanemask v_odd(vec x) { return left_out(x, ONE_SMALL); }
WORD lanemask v_odd_weight(vec x) { return ~(v_abs(x) <= v_set1(0x1p60f)); }
WORD bool is_odd_weight(real x) { return !(x >= -0x1p60f && x <= 0x1p60f); }

/* o[d] += p[j] x[j][d] of the numbers of keys that were left out, in the rows that see them; o[dims][TILE]. */
static __attribute__((noinline)) void add_apart(const work *w, lines x, int64_t dims, const uint16_t *apart, const real *p,
                                                int64_t key, int64_t n, real *o) {
  const int64_t size = (int64_t)attn_dtype_size(x.dtype), vectors = vectors_of(dims);
  for (int64_t j = 0; j < n; j++)
    for (int64_t d = 0; d < dims; d++) {
      if (!(apart[j * vectors + d / LANES] >> d % LANES & 1)) continue;
      const real number = load_some(x.dtype, x.first + (j * x.row + d * x.element) * size, 1, 1)[0];
      const real *weight = p + j * TILE;
      real *to = o + d * TILE;
      if (number * 0 == 0) {
        for (int at = 0; at < w->vecs * LANES; at += LANES) {
          const vec plain = v_select(v_odd_weight(v_load(weight + at)), (vec){0}, v_load(weight + at));
          v_store(to + at, v_fma(plain, v_set1(number), v_load(to + at)));
        }
        continue;
      }
      for (int r = 0; r < w->rows; r++)
        if (sees(w, r, key, j) && !is_odd_weight(weight[r])) to[r] += weight[r] * number;
    }
}
