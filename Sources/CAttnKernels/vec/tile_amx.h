/* Tile vocabulary of AMX: eight registers of 16 rows of 64 bytes, and the products of two of them.
 *
 * A thread's registers are unusable until it has configured them, and whoever else uses them on it may configure them
 * otherwise. So every entry into these kernels begins and ends the use of tiles, and nothing of them outlives it. Ended,
 * their state is not saved at a change of context. The register numbers of the words are constants. */
#define TILE_EDGE 16 /* rows of a tile, and floats or pairs of bfloat16 in one */
#define TILE_STEP 32 /* elements of k in one product of tiles */
#define TILE_ROW 64  /* bytes */

WORD void tiles_begin(void) {
  static const struct { uint8_t palette, rest[15]; uint16_t bytes[16]; uint8_t rows[16]; } whole = {
    1, {0}, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 }
  };
  _tile_loadconfig(&whole);
}
WORD void tiles_end(void) { _tile_release(); }

#define t_zero(tile) _tile_zero(tile)
/* Rows from address p, `step` bytes apart. */
#define t_load(tile, p, step) _tile_loadd(tile, p, step)
#define t_store(tile, p, step) _tile_stored(tile, p, step)
/* sums[i][lane] += a[i][2g] b[g][lane].low + a[i][2g + 1] b[g][lane].high over 16 pairs g; bfloat16, in float. Subnormal
 * numbers count as 0. */
#define t_dot(sums, a, b) _tile_dpbf16ps(sums, a, b)
