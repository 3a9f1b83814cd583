/* exp, tanh and the normal distribution function over vectors; for doubles the C library's, lane by lane. */

#if REAL_IS_FLOAT

#define LOG2E 1.44269504f

/* Horner's rule; coefficient 0 is the constant term. */
WORD vec polynomial(const float *coefficient, int count, vec x) {
  vec p = v_set1(coefficient[count - 1]);
#pragma clang loop unroll(full)
  for (int i = count - 2; i >= 0; i--) p = v_fma(p, x, v_set1(coefficient[i]));
  return p;
}

/* e^x = 2^n e^r; relative error below 2e-7. Without an instruction for 2^n, results above 2^127.5 are Inf.
 * n ln2 is taken off in two parts, of which the first is exact. */
WORD vec v_exp(vec x) {
  x = v_max(v_set1(EXPONENT_LOWEST * 0.6931472f), x);
  x = v_min(v_set1(89.0f), x);
  const vec n = v_round(x * LOG2E);
  vec r = x - n * 0x1.62e4p-1f;
  r = v_fma(n, v_set1(-1.4286068e-6f), r);
  return v_ldexp(v_exp2_fraction(r * LOG2E), n);
}

/* Below 0.625 x + x^3 P(x^2), relative error below 1e-7; above 1 - 2 / (e^2x + 1). */
WORD vec v_tanh(vec x) {
  static const float p[] = { -3.33332837e-1f, 1.33314848e-1f, -5.37429377e-2f, 2.06486546e-2f, -5.71478158e-3f };
  const vec z = x * x;
  const vec near = v_fma(x * z, polynomial(p, 5, z), x);
  const vec far = 1.0f - 2.0f / (v_exp(2.0f * v_abs(x)) + 1.0f);
  return v_select(v_abs(x) < v_set1(0.625f), near, v_sign_of(far, x));
}

/* Phi(x) = (1 + erf(x / sqrt 2)) / 2, with relative accuracy in the lower tail too. With a = |x| / sqrt 2:
 * a < 1: erf(a) = a P(a^2); else erfc(a) = e^(-a^2) erfcx(a), erfcx a polynomial in 1 / (1 + a/2). */
WORD vec v_normal_cdf(vec x) {
  static const float p[] = { 1.12837911f, -3.76126260e-1f, 1.12836003e-1f, -2.68544443e-2f, 5.18953567e-3f,
                             -8.02084222e-4f, 7.88912294e-5f };
  static const float q[] = { 0, 2.82099128e-1f, 2.82025486e-1f, 2.47078598e-1f, 1.78281918e-1f, 6.22533299e-2f,
                             8.06458294e-2f, -2.24846497e-1f, 9.30313766e-2f };
  const vec y = x * 0.70710678f, a = v_min(v_set1(10.0f), v_abs(y)), z = a * a;
  const vec near = 0.5f * v_fma(y, polynomial(p, 7, y * y), v_set1(1.0f));
  const vec rest = v_fma(a, a, -z); /* what rounding took from a^2; 0 without a fused multiply-add */
  const vec tail = 0.5f * polynomial(q, 9, 1.0f / v_fma(a, v_set1(0.5f), v_set1(1.0f))) * v_exp(-z) * (1.0f - rest);
  return v_select(v_abs(y) < v_set1(1.0f), near, v_select(x < (vec){0}, tail, 1.0f - tail));
}

#else

#define EACH_LANE(EXPRESSION)                            \
  vec y;                                                 \
  for (int i = 0; i < LANES; i++) y[i] = (EXPRESSION);   \
  return y

WORD vec v_exp(vec x) { EACH_LANE(exp(x[i])); }
WORD vec v_tanh(vec x) { EACH_LANE(tanh(x[i])); }
WORD vec v_normal_cdf(vec x) { EACH_LANE(0.5 * erfc(-0.7071067811865476 * x[i])); }

#endif
