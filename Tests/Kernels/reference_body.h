/* Attention as API.md writes it, in the type REAL: one row after the other, one key after the other. Included once per
 * type; the narrow ones are the plain loop that a kernel's error is measured by, the wide ones the truth. */
static void NAME(const attention_case *c, attention_reference *out) {
  const attention_options *o = &c->options;
  const int64_t group = o->q_heads / o->kv_heads, d = o->head_dim, dv = o->value_dim, keys = o->kv_rows;
  double *all = calloc((size_t)((keys + 1) * (d + dv)), sizeof *all), *k = all, *v = all + keys * d;
  double *q = calloc((size_t)d + 1, sizeof *q);
  REAL *s = calloc((size_t)keys + 1, sizeof *s);
  REAL *slack = calloc((size_t)keys + 1, sizeof *slack); /* relative error of p[j], in roundoffs */
  bool *visible = calloc((size_t)keys + 1, sizeof *visible);
  const bool weighted = o->weights_dtype != NO_DTYPE;
  for (int64_t h = 0; h < o->q_heads; h++) {
    for (int64_t j = 0; h % group == 0 && j < keys; j++) {
      for (int64_t e = 0; e < d; e++) k[j * d + e] = view_get(&c->k, h / group, j, e);
      for (int64_t e = 0; e < dv; e++) v[j * dv + e] = view_get(&c->v, h / group, j, e);
    }
    for (int64_t i = 0; i < o->q_rows; i++) {
      const int64_t row = h * o->q_rows + i;
      double *weights = weighted ? out->weights + row * keys : NULL;
      double *weights_size = weighted ? out->weights_size + row * keys : NULL;
      for (int64_t e = 0; e < d; e++) q[e] = view_get(&c->q, h, i, e);

      REAL m = o->sinks ? (REAL)c->sinks[h] : -(REAL)INFINITY;
      REAL top_size = ABS(m > -(REAL)INFINITY ? m : 0);
      bool any = false, nan = false;
      for (int64_t j = 0; j < keys; j++) {
        REAL dot = 0, size = 0;
        for (int64_t e = 0; e < d; e++) {
          const REAL term = (REAL)q[e] * (REAL)k[j * d + e];
          dot += term;
          size += ABS(term);
        }
        REAL x = (REAL)o->scale * dot;
        size *= ABS((REAL)o->scale);
        if (weighted && o->stage == ATTN_SCALED) weights[j] = (double)x;
        if (o->softcap > 0) x = (REAL)o->softcap * TANH(x / (REAL)o->softcap);
        if (weighted && o->stage == ATTN_CAPPED) weights[j] = (double)x;
        visible[j] = attention_visible(c, h, i, j);
        if (visible[j]) {
          const REAL bias = (REAL)attention_bias(c, h, i, j);
          const REAL distance = (REAL)llabs((long long)(i + o->query_offset - j));
          x += bias;
          if (o->alibi) x += -(REAL)c->slopes[h] * distance;
          size += ABS(bias) + (o->alibi ? (REAL)c->slopes[h] * distance : 0);
          any = true;
          nan |= x != x;
          if (x > m) m = x, top_size = size;
        } else {
          x = -(REAL)INFINITY;
        }
        s[j] = x;
        slack[j] = size;
        if (weighted && o->stage == ATTN_BIASED) weights[j] = (double)x;
        if (weighted) weights_size[j] = (double)size;
      }

      REAL l = o->sinks && c->sinks[h] > -INFINITY ? EXP((REAL)c->sinks[h] - m) : 0;
      for (int64_t j = 0; j < keys; j++) {
        slack[j] = 1 + (c->exact_scores ? ABS(s[j] - m) : slack[j] + top_size);
        s[j] = visible[j] ? EXP(s[j] - m) : 0;
        l += s[j];
      }
      if (nan) l = (REAL)NAN;
      if (o->lse) out->lse_size[row] = 1 + (double)top_size;
      if (o->lse) out->lse[row] = any || l != 0 ? (double)(m + LOG(l)) : -INFINITY;
      if (l == 0) l = 1;
      for (int64_t j = 0; weighted && o->stage == ATTN_PROBABILITIES && j < keys; j++) {
        weights[j] = (double)(s[j] / l);
        weights_size[j] = visible[j] ? weights[j] * (double)slack[j] : 0;
      }
      for (int64_t j = 0; o->dropout > 0 && j < keys; j++) {
        const uint32_t counter = (uint32_t)j >> 2, b = (uint32_t)o->batch;
        const uint32_t word = philox_word(o->seed, counter, (uint32_t)i, (uint32_t)h, b, j & 3);
        s[j] = word < c->problem.dropout_threshold ? 0 : s[j] * (REAL)c->problem.dropout_scale;
      }
      for (int64_t e = 0; e < dv; e++) {
        REAL sum = 0, size = 0;
        for (int64_t j = 0; j < keys; j++) {
          if (!visible[j]) continue;
          const REAL term = s[j] * (REAL)v[j * dv + e];
          sum += term;
          size += ABS(term) * slack[j];
        }
        out->o[row * dv + e] = (double)(sum / l);
        out->o_size[row * dv + e] = (double)(size / l);
      }
    }
  }
  free(all);
  free(q);
  free(s);
  free(slack);
  free(visible);
}
#undef REAL
#undef NAME
#undef EXP
#undef LOG
#undef TANH
#undef ABS
