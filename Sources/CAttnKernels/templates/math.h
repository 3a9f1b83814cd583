/* exp, tanh and gelu over vectors; for doubles the C library's, lane by lane. */

#if REAL_IS_FLOAT

#define LOG2E 1.44269504f
#define HALF_LOG2E 0.72134752f

/* Horner's rule in x^2 for the even and the odd powers: half as long a wait as in x. Coefficient 0 is the constant term. */
WORD vec polynomial(const float *coefficient, int count, vec x) {
  const vec square = x * x;
  vec p[2] = { v_set1(coefficient[count - 1]), v_set1(coefficient[count - 2]) }; /* of the last power, and the one before */
#pragma clang loop unroll(full)
  for (int i = count - 3; i >= 0; i--) {
    const int which = (count - 1 - i) % 2;
    p[which] = v_fma(p[which], square, v_set1(coefficient[i]));
  }
  return (count - 1) % 2 ? v_fma(p[0], x, p[1]) : v_fma(p[1], x, p[0]);
}

#define EXP_LOWEST (EXPONENT_LOWEST * 0.6931472f) /* e^x is 0 there */

/* x[i] = e^x[i] for EXP_LOWEST <= x[i] <= 89: 2^n e^r, relative error below 2e-7. Without an instruction for 2^n, results above
 * 2^127.5 are Inf. n ln2 is taken off in two parts, of which the first is exact; e^r is a minimax polynomial whose first terms
 * are 1 and r, relative error below 3.1e-9 before rounding. */
WORD void v_exps_within(const int count, vec *x) {
  static const float c[] = { 1.0f, 1.0f, 4.9999993e-1f, 1.6666520e-1f, 4.1668391e-2f, 8.3687451e-3f, 1.3814540e-3f };
  power two[MANY];
  vec p[MANY];
  EACH(i, count) two[i] = v_power(x[i], LOG2E);
  EACH(i, count) x[i] = v_fma(two[i].n, v_set1(-0x1.62e4p-1f), x[i]);
  EACH(i, count) x[i] = v_fma(two[i].n, v_set1(-1.4286068e-6f), x[i]);
  polynomials(count, c, 7, x, p);
  EACH(i, count) x[i] = v_scale(p[i], two[i]);
}

/* The same for x[i] <= 0, and for any x[i]. */
WORD void v_exps_fall(const int count, vec *x) {
  EACH(i, count) x[i] = v_max(v_set1(EXP_LOWEST), x[i]);
  v_exps_within(count, x);
}
WORD void v_exps(const int count, vec *x) {
  EACH(i, count) x[i] = v_min(v_set1(89.0f), x[i]);
  v_exps_fall(count, x);
}

WORD vec v_exp_fall(vec x) { v_exps_fall(1, &x); return x; }
WORD vec v_exp(vec x) { v_exps(1, &x); return x; }

/* Below 0.625 x + x^3 P(x^2), relative error below 1e-7; above 1 - 2 / (e^2x + 1). */
WORD vec v_tanh(vec x) {
  static const float p[] = { -3.33332837e-1f, 1.33314848e-1f, -5.37429377e-2f, 2.06486546e-2f, -5.71478158e-3f };
  const vec z = x * x;
  const vec near = v_fma(x * z, polynomial(p, 5, z), x);
  const vec far = 1.0f - 2.0f / (v_exp(2.0f * v_abs(x)) + 1.0f);
  return v_select(v_abs(x) < v_set1(0.625f), near, v_sign_of(far, x));
}

/* Beyond it e^(-x^2 / 2) is 0, and every power of two before it can be made: x^2 LOG2E / 2 = -EXPONENT_LOWEST. */
#define GELU_END (EXPONENT_LOWEST < -127.0f ? 14.894f : 13.27f)

/* Phi(-a) = e^(-a^2 / 2) erfcx(a / sqrt 2) / 2 for a = |x|, its second part t P(t) with t = 1 / (1 + 0.3465 a), relative
 * error of P below 3e-8. With few digits, relative error below 1e-5: enough for the 8 bits of a bfloat16. */
typedef struct normal_tails {
  vec a[MANY], fall[MANY], t[MANY], p[MANY]; /* |x|, e^(-a^2 / 2), t, P(t) */
} normal_tails;

WORD normal_tails v_normal_tails(const int count, const bool few_digits, const vec *x) {
  static const float p[] = { 1.38213143e-1f, 1.38561890e-1f, 1.18040025e-1f, 1.09845266e-1f, -3.31505537e-2f,
                             1.78851426e-1f, -2.66732901e-1f, 1.45003796e-1f, -2.86320914e-2f };
  static const float few[] = { 1.23623826e-1f, 1.19943775e-1f, 1.34424299e-1f, 1.30125191e-2f, 1.83429539e-1f,
                               -7.44361356e-2f };
  static const float few_exp2[] = { 9.99999285e-1f, 6.93121791e-1f, 2.40247443e-1f, 5.59178591e-2f, 9.57009662e-3f };
  const float slope = few_digits ? 0.30935922f : 0.34648232f;
  normal_tails n;
  vec r[MANY];
  power two[MANY];
  EACH(i, count) n.a[i] = v_min(v_set1(GELU_END), v_abs(x[i]));
  EACH(i, count) { /* e^(-a^2 / 2) = 2^n 2^r, the range already in order */
    const vec z = n.a[i] * n.a[i];
    two[i] = v_power(z, -HALF_LOG2E);
    r[i] = v_fma(z, v_set1(-HALF_LOG2E), -two[i].n);
  }
  if (few_digits) polynomials(count, few_exp2, 5, r, n.fall);
  else v_exp2_fractions(count, r, n.fall);
  EACH(i, count) n.fall[i] = v_scale(n.fall[i], two[i]);
  EACH(i, count) n.t[i] = 1.0f / v_fma(n.a[i], v_set1(slope), v_set1(1.0f));
  if (few_digits) polynomials(count, few, 6, n.t, n.p);
  else polynomials(count, p, 9, n.t, n.p);
  return n;
}

/* gelu(x) = max(x, 0) - |x| Phi(-|x|), which cancels nowhere. */
WORD void v_gelus(const int count, const bool few_digits, vec *x) {
  const normal_tails n = v_normal_tails(count, few_digits, x);
  EACH(i, count) x[i] = v_max((vec){0}, x[i]) - n.p[i] * n.fall[i] * (n.a[i] * n.t[i]);
}

/* Its slope Phi(x) + x phi(x). */
WORD void v_gelu_slopes(const int count, vec *x) {
  const normal_tails n = v_normal_tails(count, false, x);
  EACH(i, count) {
    const vec far = n.p[i] * n.fall[i] * n.t[i];
    x[i] = v_select(x[i] < (vec){0}, far, 1.0f - far) + v_sign_of(n.a[i], x[i]) * (n.fall[i] * 0.39894228f);
  }
}

#else

#define EACH_LANE(EXPRESSION)                            \
  vec y;                                                 \
  for (int i = 0; i < LANES; i++) y[i] = (EXPRESSION);   \
  return y

#define EACH_VECTOR(FUNCTION) EACH(i, count) x[i] = FUNCTION(x[i])

#define EXP_LOWEST (-746.0)
WORD vec v_exp(vec x) { EACH_LANE(exp(x[i])); }
WORD vec v_tanh(vec x) { EACH_LANE(tanh(x[i])); }
WORD vec v_gelu(vec x) { EACH_LANE(0.5 * x[i] * erfc(-0.7071067811865476 * x[i])); }
WORD vec v_gelu_slope(vec x) {
  EACH_LANE(0.5 * erfc(-0.7071067811865476 * x[i]) + (fabs(x[i]) < 40 ? x[i] * exp(-0.5 * x[i] * x[i]) : 0) * 0.3989422804014327);
}
WORD void v_exps(const int count, vec *x) { EACH_VECTOR(v_exp); }
#define v_exp_fall v_exp
#define v_exps_fall v_exps
#define v_exps_within v_exps
WORD void v_gelus(const int count, const bool few_digits, vec *x) {
  (void)few_digits;
  EACH_VECTOR(v_gelu);
}
WORD void v_gelu_slopes(const int count, vec *x) { EACH_VECTOR(v_gelu_slope); }

#endif
