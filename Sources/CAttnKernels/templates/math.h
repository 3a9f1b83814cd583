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

/* e^x = 2^n e^r for EXP_LOWEST <= x <= 89; relative error below 2e-7. Without an instruction for 2^n, results above 2^127.5
 * are Inf. n ln2 is taken off in two parts, of which the first is exact. */
WORD vec v_exp_within(vec x) {
  const vec n = v_round(x * LOG2E);
  vec r = x - n * 0x1.62e4p-1f;
  r = v_fma(n, v_set1(-1.4286068e-6f), r);
  return v_ldexp(v_exp2_fraction(r * LOG2E), n);
}

WORD vec v_exp(vec x) { return v_exp_within(v_min(v_set1(89.0f), v_max(v_set1(EXP_LOWEST), x))); }

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
 * error of P below 3e-8. */
typedef struct normal_tail {
  vec a, power, t, p; /* |x|, e^(-a^2 / 2), t, P(t) */
} normal_tail;

WORD normal_tail v_normal_tail(vec x) {
  static const float p[] = { 1.38213143e-1f, 1.38561890e-1f, 1.18040025e-1f, 1.09845266e-1f, -3.31505537e-2f,
                             1.78851426e-1f, -2.66732901e-1f, 1.45003796e-1f, -2.86320914e-2f };
  const vec a = v_min(v_set1(GELU_END), v_abs(x));
  const vec t = 1.0f / v_fma(a, v_set1(0.34648232f), v_set1(1.0f));
  /* e^(-a^2 / 2) = 2^n 2^r, the range already in order */
  const vec z = a * a, n = v_round(z * -HALF_LOG2E);
  const vec power = v_ldexp(v_exp2_fraction(v_fma(z, v_set1(-HALF_LOG2E), -n)), n);
  return (normal_tail){ a, power, t, polynomial(p, 9, t) };
}

/* gelu(x) = max(x, 0) - |x| Phi(-|x|), which cancels nowhere. */
WORD vec v_gelu(vec x) {
  const normal_tail n = v_normal_tail(x);
  return v_max((vec){0}, x) - n.p * n.power * (n.a * n.t);
}

/* Its slope Phi(x) + x phi(x). */
WORD vec v_gelu_slope(vec x) {
  const normal_tail n = v_normal_tail(x);
  const vec far = n.p * n.power * n.t;
  return v_select(x < (vec){0}, far, 1.0f - far) + v_sign_of(n.a, x) * (n.power * 0.39894228f);
}

/* gelu with shorter polynomials, relative error below 1e-5: enough for the 8 bits of a bfloat16. */
WORD vec v_gelu_short(vec x) {
  static const float p[] = { 1.23623826e-1f, 1.19943775e-1f, 1.34424299e-1f, 1.30125191e-2f, 1.83429539e-1f,
                             -7.44361356e-2f };
  static const float e[] = { 9.99999285e-1f, 6.93121791e-1f, 2.40247443e-1f, 5.59178591e-2f, 9.57009662e-3f };
  const vec a = v_min(v_set1(GELU_END), v_abs(x));
  const vec t = 1.0f / v_fma(a, v_set1(0.30935922f), v_set1(1.0f));
  const vec z = a * a, n = v_round(z * -HALF_LOG2E);
  const vec power = v_ldexp(polynomial(e, 5, v_fma(z, v_set1(-HALF_LOG2E), -n)), n);
  return v_max((vec){0}, x) - polynomial(p, 6, t) * power * (a * t);
}

#else

#define EACH_LANE(EXPRESSION)                            \
  vec y;                                                 \
  for (int i = 0; i < LANES; i++) y[i] = (EXPRESSION);   \
  return y

WORD vec v_exp(vec x) { EACH_LANE(exp(x[i])); }
#define EXP_LOWEST (-746.0)
#define v_exp_within v_exp
WORD vec v_tanh(vec x) { EACH_LANE(tanh(x[i])); }
WORD vec v_gelu(vec x) { EACH_LANE(0.5 * x[i] * erfc(-0.7071067811865476 * x[i])); }
#define v_gelu_short v_gelu
WORD vec v_gelu_slope(vec x) {
  EACH_LANE(0.5 * erfc(-0.7071067811865476 * x[i]) + (fabs(x[i]) < 40 ? x[i] * exp(-0.5 * x[i] * x[i]) : 0) * 0.3989422804014327);
}

#endif
