/* Operands of products that are plain numbers. */
#define DEPTH 1
typedef real operand;
typedef vec operands;
WORD operands v_operands(const operand *p) { return v_load(p); }
WORD operands v_repeat(operand x) { return v_set1(x); }
WORD operands v_as_operands(vec v) { return v; }
WORD vec v_dot(operands a, operands b, vec c) { return v_fma(a, b, c); }
