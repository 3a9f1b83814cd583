/* Products of blocks of tiles, operands cut in PARTS parts of bfloat16 of which PRODUCTS products are taken:
 *
 *   c[i][lane] (+)= sum over p of a[i][p] b[p][lane]        x = x0 + x1 + x2, |x1| < 2^-8 |x0|, |x2| < 2^-8 |x1|
 *
 *   PRODUCTS  6: a0 b0 + (a0 b1 + a1 b0 + a1 b1 + a0 b2 + a2 b0), what is left away is below 2^-25 |a b|
 *             4: all of two parts each; where b has three a0 b0 + (a0 b1 + a1 b0 + a1 b1 + a0 b2), where a has, likewise
 *             3: a0 b0 + (a0 b1 + a1 b0)        1: a0 b0
 *
 * The terms in brackets are summed first, over all of k, so that only the last sums round at the size of the result. An
 * element's bits depend on its row of a, its column of b and k alone: a tile keeps rows and columns apart, and the sums of a
 * product of two tiles are the same with a and b in each other's place. */

/* a: rows `row` bytes apart, their elements side by side. b: pairs of elements of k side by side over the lanes, `row` bytes
 * from pair to pair. Both: whole tiles, padded with 0 along k; the parts `part` bytes apart. */
typedef struct tile_operand {
  const char *at;
  int64_t row, part;
} tile_operand;

#if PRODUCTS == 6
#define SMALLER_PRODUCTS(TERM) TERM(2, 0) TERM(1, 0) TERM(1, 1) TERM(0, 1) TERM(0, 2)
#elif PRODUCTS == 4
#define SMALLER_PRODUCTS(TERM)                  \
  if (job->three == THREE_OF_B) {               \
    TERM(0, 2) TERM(0, 1) TERM(1, 1) TERM(1, 0) \
  } else if (job->three == THREE_OF_A) {        \
    TERM(2, 0) TERM(1, 0) TERM(1, 1) TERM(0, 1) \
  } else {                                      \
    TERM(1, 0) TERM(1, 1) TERM(0, 1)            \
  }
#elif PRODUCTS == 3
#define SMALLER_PRODUCTS(TERM) TERM(1, 0) TERM(0, 1)
#else
#define SMALLER_PRODUCTS(TERM)
#endif
#define FIRST_PASS (PRODUCTS > 1 ? 0 : 1) /* of two: the smaller products, the largest one */

/* Which operand is a float in three parts, where the others are a float16 in two. */
typedef enum three_parts { THREE_OF_NONE, THREE_OF_A, THREE_OF_B } three_parts;

/* A product on its way, a few instructions at a time: others may run in between. */
typedef struct tile_job {
  tile_operand a, b;
  int64_t rows, lanes, steps; /* in tiles; of TILE_STEP along k */
  real *c;
  int64_t c_step;
  bool add;
  int64_t most_rows; /* that c has, if the last tile reaches beyond: what they add is summed from 0 then; else 0 */
  three_parts three;
  int64_t i, j, step; /* where it stands: tile row, tile of lanes */
  int pass;
} tile_job;

static tile_job product_of_tiles(int64_t rows, int64_t lanes, int64_t steps, tile_operand a, tile_operand b, real *c,
                                 int64_t c_step, bool add) {
  return (tile_job){ .a = a, .b = b, .rows = rows, .lanes = lanes, .steps = steps, .c = c, .c_step = c_step, .add = add,
                     .pass = FIRST_PASS };
}

/* Four sums at a time: 2 x 2 where there are as many rows and lanes, 4 x 1 under few lanes, 1 x 4 for a last row. Sums are
 * tiles 0 to 3, a is in 4 and 5, b in 6 and 7. */
enum { SQUARE, COLUMN, LINE };

static int shape_of(const tile_job *job) {
  if (job->lanes == 1) return COLUMN;
  if (job->i + 1 == job->rows) return LINE;
  return job->j + 1 == job->lanes ? COLUMN : SQUARE;
}

static int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

static int64_t rows_of(const tile_job *job, int shape) {
  return shape == LINE ? 1 : least(job->rows - job->i, shape == COLUMN && job->lanes == 1 ? 4 : 2);
}

static int64_t lanes_of(const tile_job *job, int shape) {
  return shape == COLUMN ? 1 : least(job->lanes - job->j, shape == LINE ? 4 : 2);
}

/* Where sum n of the shape belongs. */
static real *place_of(const tile_job *job, int shape, int n) {
  const int64_t i = shape == LINE ? 0 : shape == COLUMN ? n : n / 2, j = shape == LINE ? n : shape == COLUMN ? 0 : n % 2;
  return job->c + (job->i + i) * TILE_EDGE * job->c_step + (job->j + j) * TILE_EDGE;
}

#define EACH_SUM(count, DO)   \
  DO(0)                       \
  if ((count) > 1) { DO(1) }  \
  if ((count) > 2) { DO(2) }  \
  if ((count) > 3) { DO(3) }

/* Whether the tiles go on from what c holds. */
static bool goes_on(const tile_job *job) { return PRODUCTS == 1 && job->add && !job->most_rows; }

static void begin_sums(const tile_job *job, int shape, int64_t count) {
  const bool load = goes_on(job);
  const int64_t row = job->c_step * (int64_t)sizeof(real);
#define BEGIN(n)                                        \
  if (load) t_load(n, place_of(job, shape, n), row);    \
  else t_zero(n);
  EACH_SUM(count, BEGIN)
}

/* Sums that began at 0 are added here: short ones round less. */
static void end_sums(const tile_job *job, int shape, int64_t count) {
  const int64_t row = job->c_step * (int64_t)sizeof(real);
  if (!job->add || goes_on(job)) {
#define STORE(n) t_store(n, place_of(job, shape, n), row);
    EACH_SUM(count, STORE)
    return;
  }
  real sums[4][TILE_EDGE * TILE_EDGE] __attribute__((aligned(64)));
#define SPILL(n) t_store(n, sums[n], TILE_ROW);
  EACH_SUM(count, SPILL)
  for (int n = 0; n < count; n++) {
    real *const first = place_of(job, shape, n);
    const int64_t rows = job->most_rows ? least(job->most_rows - (first - job->c) / job->c_step, TILE_EDGE) : TILE_EDGE;
    for (int64_t i = 0; i < rows; i++) {
      real *to = first + i * job->c_step;
      v_store(to, v_load(to) + v_load(sums[n] + i * TILE_EDGE));
    }
  }
}

/* One product of parts; what the registers hold already is not loaded again. */
#define SQUARE_TERM(x, y)                         \
  if (held_a != (x)) {                            \
    t_load(4, a + (x) * A.part, A.row);           \
    t_load(5, a + (x) * A.part + TILE_EDGE * A.row, A.row); \
    held_a = (x);                                 \
  }                                               \
  if (held_b != (y)) {                            \
    t_load(6, b + (y) * B.part, B.row);           \
    t_load(7, b + (y) * B.part + TILE_ROW, B.row); \
    held_b = (y);                                 \
  }                                               \
  t_dot(0, 4, 6);                                 \
  t_dot(1, 4, 7);                                 \
  t_dot(2, 5, 6);                                 \
  t_dot(3, 5, 7);

#define COLUMN_SUM(n, register, x, y)                                  \
  t_load(register, a + (x) * A.part + (n) * TILE_EDGE * A.row, A.row); \
  t_dot(n, register, 6);
#define COLUMN_TERM(x, y)                          \
  t_load(6, b + (y) * B.part, B.row);              \
  COLUMN_SUM(0, 4, x, y)                           \
  if (rows > 1) { COLUMN_SUM(1, 5, x, y) }         \
  if (rows > 2) { COLUMN_SUM(2, 4, x, y) }         \
  if (rows > 3) { COLUMN_SUM(3, 5, x, y) }

#define LINE_SUM(n, register, x, y)                            \
  t_load(register, b + (y) * B.part + (n) * TILE_ROW, B.row);  \
  t_dot(n, 4, register);
#define LINE_TERM(x, y)                            \
  t_load(4, a + (x) * A.part, A.row);              \
  LINE_SUM(0, 6, x, y)                             \
  if (lanes > 1) { LINE_SUM(1, 7, x, y) }          \
  if (lanes > 2) { LINE_SUM(2, 6, x, y) }          \
  if (lanes > 3) { LINE_SUM(3, 7, x, y) }

/* One step along k. */
static void step_of(const tile_job *job, int shape, int64_t rows, int64_t lanes) {
  const tile_operand A = job->a, B = job->b;
  const char *a = A.at + job->i * TILE_EDGE * A.row + job->step * TILE_ROW;
  const char *b = B.at + job->step * TILE_EDGE * B.row + job->j * TILE_ROW;
  int held_a = -1, held_b = -1; /* constants to the compiler */
  if (shape == SQUARE) {
    if (job->pass == 0) {
      SMALLER_PRODUCTS(SQUARE_TERM)
    } else {
      SQUARE_TERM(0, 0)
    }
  } else if (shape == COLUMN) {
    if (job->pass == 0) {
      SMALLER_PRODUCTS(COLUMN_TERM)
    } else {
      COLUMN_TERM(0, 0)
    }
  } else {
    if (job->pass == 0) {
      SMALLER_PRODUCTS(LINE_TERM)
    } else {
      LINE_TERM(0, 0)
    }
  }
}

/* The next few products of tiles, 64 cycles of them or a few times as many; false: all is done. */
static bool advance(tile_job *job) {
  if (job->i >= job->rows) return false;
  const int shape = shape_of(job);
  const int64_t rows = rows_of(job, shape), lanes = lanes_of(job, shape);
  if (job->step == 0 && job->pass == FIRST_PASS) begin_sums(job, shape, rows * lanes);
  if (job->steps) step_of(job, shape, rows, lanes);
  if (++job->step < job->steps) return true;
  job->step = 0;
  if (job->pass == 0 && job->steps) {
    job->pass = 1;
    return true;
  }
  end_sums(job, shape, rows * lanes);
  job->pass = FIRST_PASS;
  job->j += lanes;
  if (job->j >= job->lanes) {
    job->j = 0;
    job->i += rows;
  }
  return true;
}

static void complete(tile_job *job) {
  while (advance(job)) continue;
}

/* Jobs in the order in which they are done: the first is under way. */
typedef struct tile_queue {
  tile_job jobs[6];
  int job, end;
} tile_queue;

static void enqueue(tile_queue *queue, tile_job job) { queue->jobs[queue->end++] = job; }

/* A few products of tiles, if any are left: called between vectors. */
static void keep_busy(tile_queue *queue) {
  while (queue->job < queue->end && !advance(&queue->jobs[queue->job])) queue->job++;
}

static void finish_jobs(tile_queue *queue) {
  for (; queue->job < queue->end; queue->job++) complete(&queue->jobs[queue->job]);
  queue->job = queue->end = 0;
}
