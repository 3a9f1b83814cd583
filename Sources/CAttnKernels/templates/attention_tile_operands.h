/* What the forward and the backward of attention on tiles share: how a tile is cut, and how its tensors become operands. */

#define GROUP_LANES 256 /* of a tile */
#define GROUP_PARTS 8   /* 7 heads with 33 queries: the worst cut */
#define KEY_STEPS STEPS(KEYS)
#define TURNED_ROW (PARTS * KEY_STEPS * TILE_ROW + (PARTS == 2 ? TILE_ROW : 0)) /* an odd number of lines of the cache */
#define B_ROW ((int64_t)(TILE * sizeof(pair)))
#define REAL_PARTS (PRODUCTS == 4 ? 3 : PARTS) /* of what is computed: a float, where tensors are two bfloat16 */
#define BLOCK_PART (KEY_STEPS * TILE_EDGE * B_ROW) /* of pairs of keys */

static int64_t lines_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }
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

/* Rows x[dims][TILE] in the lanes: [part][pairs of dims][TILE]. hard[v]: lanes whose numbers are hard. */
static void take_lanes(const real *x, int64_t dims, int vecs, char *to, lanemask *hard) {
  const int64_t bytes = lanes_part_bytes(dims);
  for (int v = 0; v < vecs; v++) {
    hard[v] = (lanemask){0};
    for (int64_t d = 0; d < STEPS(dims) * TILE_STEP; d += 2) {
      vec low = d < dims ? v_load(x + d * TILE + v * LANES) : (vec){0};
      vec high = d + 1 < dims ? v_load(x + (d + 1) * TILE + v * LANES) : (vec){0};
      hard[v] |= v_hard(low) | v_hard(high);
      for (int i = 0; i < PARTS; i++)
        v_store((real *)(to + i * bytes + d / 2 * B_ROW + v * TILE_ROW), v_take_pairs(&low, &high));
    }
  }
}

/* Rows of keys: [key][part][dims], in place where they are that already. hard[j]: whether row j has numbers that are hard. */
static tile_operand take_rows(lines x, int64_t n, int64_t dims, char *to, bool *hard, tile_queue *queue) {
  const int64_t row = x.row * (int64_t)attn_dtype_size(x.dtype), bytes = row_bytes(dims), part = STEPS(dims) * TILE_ROW;
  for (int64_t j = 0; j < n; j++) hard[j] = false;
  if (PARTS == 1 && x.dtype == ATTN_BF16 && x.element == 1 && dims % TILE_STEP == 0 && n % TILE_EDGE == 0)
    return (tile_operand){ x.first, row, 0 };
  for (int64_t j = 0; j < n; j++) {
    lanemask found = {0};
    for (int64_t d = 0; d < dims; d += TILE_STEP)
      found |= take_parts(x.dtype, x.first + j * row, x.element, d, dims, to + j * bytes + 2 * d, part);
    hard[j] = PARTS > 1 && v_any(found);
    keep_busy(queue);
  }
  return (tile_operand){ to, bytes, part };
}

WORD lanemask left_out(vec x) { return PARTS > 1 ? v_hard(x) : v_huge(x); }

/* Rows of keys turned: [dim][part][keys]. With apart, values that are left_out count as 0 and are marked there:
 * [KEYS][vectors of dims]. Says whether some are. */
static bool take_turned(lines x, int64_t n, int64_t dims, char *to, uint16_t *apart, tile_queue *queue) {
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
          if (!apart) continue;
          const lanemask out = left_out(both[i]);
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
