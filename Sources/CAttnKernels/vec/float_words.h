/* Float words that need no special instruction; an ISA's header overrides those it has better ones for. */

/* bfloat16 is the upper half of a float: exact one way; the other rounds to nearest even and keeps NaN quiet. */
WORD vec v_from_bf16(halfvec h) { return (vec)(__builtin_convertvector(h, ivec) << 16); }
WORD halfvec v_to_bf16(vec v) {
  typedef uint32_t uvec __attribute__((vector_size(VEC_BYTES)));
  uvec u = (uvec)v;
  uvec rounded = u + 0x7fffu + ((u >> 16) & 1u);
  uvec nan = (uvec)(v != v);
  return __builtin_convertvector((((u | 0x400000u) & nan) | (rounded & ~nan)) >> 16, halfvec);
}

#ifndef HAS_F16_WORDS
/* binary16 to float: move exponent and mantissa into place and let a multiplication by 2^112 rebias, which also
 * normalises subnormals; Inf and NaN keep an all-ones exponent. */
WORD vec v_from_f16(halfvec h) {
  ivec x = __builtin_convertvector(h, ivec);
  ivec magnitude = (x & 0x7fff) << 13;
  vec value = (vec)magnitude * 0x1p112f;
  lanemask special = magnitude >= (0x7c00 << 13);
  value = v_select(special, (vec)(magnitude | 0x7f800000), value);
  return (vec)((ivec)value | (x & 0x8000) << 16);
}
/* float to binary16, nearest even. Normal results round in the bits; subnormal ones by adding 0.5, whose last
 * mantissa bit is the subnormal's. */
WORD halfvec v_to_f16(vec v) {
  ivec sign = ((ivec)v >> 16) & 0x8000;
  vec a = v_abs(v);
  typedef uint32_t uvec __attribute__((vector_size(VEC_BYTES)));
  uvec normal = (((uvec)a + 0xfffu + (((uvec)a >> 13) & 1u)) >> 13) - (112u << 10);
  ivec tiny = (ivec)(a + 0.5f) - 0x3f000000;
  ivec r = (ivec)v_select(a < 0x1p-14f, (vec)tiny, (vec)normal);
  r = (ivec)v_select(a >= 65520.0f, (vec)((ivec){0} + 0x7c00), (vec)r);
  r = (ivec)v_select(v != v, (vec)((ivec){0} + 0x7e00), (vec)r);
  return __builtin_convertvector(r | sign, halfvec);
}
#endif

#ifndef HAS_POWER
/* Nearest integer of |x| < 2^22: adding 1.5 * 2^23 leaves it in the low mantissa bits. */
WORD vec v_round(vec x) { return (x + 0x1.8p23f) - 0x1.8p23f; }
/* An integer and 2^n. */
typedef struct power {
  vec n, scale;
} power;
/* The integer nearest to x c, -127 <= n <= 128: an exponent's bias added with the rest makes the low mantissa bits one. */
WORD power v_power(vec x, float c) {
  const float shift = 0x1.8p23f + 127;
  const vec shifted = v_fma(x, v_set1(c), v_set1(shift));
  return (power){ shifted - shift, (vec)((ivec)shifted << 23) };
}
/* p * 2^n; n = -127 gives 0, n = 128 Inf. */
WORD vec v_scale(vec p, power two) { return p * two.scale; }
#define EXPONENT_LOWEST -127.0f
#endif

/* p[i] = coefficient[0] + coefficient[1] x[i] + ..., of `terms` terms by Horner's rule. */
WORD void polynomials(const int count, const float *coefficient, const int terms, const vec *x, vec *p) {
  EACH(i, count) p[i] = v_set1(coefficient[terms - 1]);
  EACH(k, terms - 1) {
    EACH(i, count) p[i] = v_fma(p[i], x[i], v_set1(coefficient[terms - 2 - k]));
    v_together(count, p);
  }
}

/* p[i] = 2^r[i] for |r[i]| <= 1/2, a minimax polynomial; relative error below 2.6e-9 before rounding. */
WORD void v_exp2_fractions(const int count, const vec *r, vec *p) {
  static const float c[] = { 1.0f, 6.9314724e-1f, 2.4022652e-1f, 5.5503104e-2f, 9.6176928e-3f, 1.3406643e-3f, 1.5594677e-4f };
  polynomials(count, c, 7, r, p);
}

WORD vec v_exp2_fraction(vec r) {
  vec p;
  v_exp2_fractions(1, &r, &p);
  return p;
}

#ifndef HAS_EXP2
/* 2^x; relative error below 1.2e-7, without a fused multiply-add 1.5e-7. The clamp turns -inf, whose fraction would be NaN,
 * into an exponent that underflows to 0; NaN stays NaN. */
WORD vec v_exp2(vec x) {
  x = v_max(v_set1(EXPONENT_LOWEST), x);
  x = v_min(v_set1(128.0f), x);
  const power two = v_power(x, 1);
  return v_scale(v_exp2_fraction(x - two.n), two);
}
/* x[i] = 2^(x[i] c) where no product is positive, or NaN. */
WORD void v_exp2s_fall(const int count, vec *x, float c) {
  power two[MANY];
  vec p[MANY];
  EACH(i, count) x[i] = v_max(v_set1(EXPONENT_LOWEST / c), x[i]);
  EACH(i, count) two[i] = v_power(x[i], c);
  EACH(i, count) x[i] = v_fma(x[i], v_set1(c), -two[i].n);
  v_exp2_fractions(count, x, p);
  EACH(i, count) x[i] = v_scale(p[i], two[i]);
}
#endif
