/* SPDX-License-Identifier: Apache-2.0 */
/* Operator kernels, called by the generated model.c with constants that the compiler computed. Activations are int8 NHWC,
 * gradients float32 in real units, same shape. Every backward ADDS to dx (the generated code zeroes a gradient once).
 * All quantities are validated by the compiler: kernels trust them. docs/numerics.md is the contract of the arithmetic. */
#ifndef LMCU_OPS_H
#define LMCU_OPS_H

#include "lmcu.h"

/* Called after each operator of the generated code with its step in the memory plan. A build that counts instructions per
 * layer defines it (benchmarks/); otherwise it is nothing. */
#ifndef LMCU_STEP
#define LMCU_STEP(step) lmcu_layer_done()
#endif

/* How a clamped output passes gradients back (straight-through). An activation's bound masks every gradient at it; the bare
 * int8 rail masks only what would push further out: g < 0 at 127, g > 0 at -128. */
typedef struct {
    int32_t act_min, act_max;    /* clamp of the output, int8 */
    int32_t min_is_bound;        /* 1: act_min belongs to a fused activation */
    int32_t max_is_bound;
} lmcu_clamp_t;

#if LMCU_NUMERICS_I16
/* whole * 2^(exponent - 32), 2^30 <= whole < 2^31 */
typedef struct {
    int32_t whole, exponent;
} lmcu_scaled_t;
#endif

/* The adapter of one layer; NULL where a layer is not adapted. */
typedef struct {
    int32_t rank;
    int32_t a_offset, b_offset;  /* elements in factors and gradients */
    int32_t in_bias;             /* 1: bias, what the adapter adds and W x together fit int32, whatever the factors */
#if LMCU_NUMERICS_I16
    const lmcu_scaled_t *c;      /* [m] fl32(gamma / s_w[o]) */
    const uint16_t *by_exponent; /* [m] the outputs, those with the largest exponents of c first */
    int32_t k, m;
    int32_t tables;              /* offset in lmcu_tables */
    /* whole * 2^exponent, 2^14 <= whole < 2^15: of gamma, of s_x, and of gamma * s_x */
    int32_t gamma_whole, gamma_exponent, input_whole, input_exponent, step_whole, step_exponent;
#else
    float gamma;                 /* alpha / r, or alpha / sqrt(r) */
    float input_scale;           /* s_x */
    const float *c;              /* [m] fl32(gamma / s_w[o]) */
#endif
} lmcu_lora_t;

#if LMCU_NUMERICS_I16
/* What the backward pass of a layer with weights must know besides them. */
typedef struct {
    const int16_t *scales;       /* [m] S: s_w[o] ~ S[o] * 2^exponent, the largest in 2^14 .. 2^15 - 1 */
    int32_t exponent;
    uint32_t random, words;      /* the layer's first random word of a sample, and how many a sample has */
} lmcu_block_t;
#endif

/* Requantization by gemmlowp's double rounding (convolution, depthwise) of scales (1 + fraction[o] / 2^32) / 2^(right[o] + 1):
 * SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT by right + 1; right < -1 shifts left first. acc is clamped to
 * +-((2^31 - 1) >> max(-1 - right, 0)) before, where the output is saturated already, so that nothing overflows. */
typedef struct {
    const int32_t *fraction;     /* -2^31 <= fraction < 0, twice gemmlowp's multiplier in its bits; 0: the scale is 0 */
    const int8_t *right;
} lmcu_requant_t;

/* Requantization that rounds half away from zero (dense): sign(acc) * floor((|acc| * multiplier + 2^(shift-1)) / 2^shift),
 * multiplier < 2^62, 33 <= shift <= 95, |acc| <= 2^31 - 1. Shift 0, or NULL for 0 throughout: the multiplier is n + s * 2^32,
 * 0 <= n < 2^31, 0 <= s <= 20, of the quick form (floor(acc * n / 2^32) + (2 z_y + 1) * 2^s) >> (s + 1), limited to int8. The
 * compiler proved either equal to the double rule at every threshold. */
typedef struct {
    const uint64_t *multiplier; /* [m] or [1] */
    const uint8_t *shift;
    int32_t per_channel;        /* 0: one entry for all outputs */
} lmcu_round_t;

/* y = clamp(RQ(b + W x) + z_y). x [batch][k], w [m][k], bias [m] or NULL, y [batch][m]. */
typedef struct {
    int32_t batch, k, m;
    int32_t input_zero_point, weight_zero_point, output_zero_point;
    lmcu_clamp_t clamp;
    lmcu_round_t requant;
    const int8_t *weights;
    const int32_t *bias;
    const float *weight_scale;   /* s_w, [m]: backward only, NULL without */
#if LMCU_NUMERICS_I16
    const lmcu_block_t *block;   /* backward only */
#endif
} lmcu_dense_t;

/* x [in_h][in_w][in_c], w [out_c][kernel_h][kernel_w][in_c], y [out_h][out_w][out_c]; K = kernel_h * kernel_w * in_c */
typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t input_zero_point, output_zero_point;
    lmcu_clamp_t clamp;
    lmcu_requant_t requant;
    const int8_t *weights;
    const int32_t *bias;
    const float *weight_scale;   /* [out_c] */
#if LMCU_NUMERICS_I16
    const lmcu_block_t *block;   /* backward only */
#endif
} lmcu_conv2d_t;

/* w [kernel_h][kernel_w][out_c], out_c = in_c * multiplier, output channel = c * multiplier + q */
typedef struct {
    lmcu_conv2d_t conv;
    int32_t multiplier;
} lmcu_depthwise_t;

typedef struct {
    int32_t in_h, in_w, channels, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    lmcu_clamp_t clamp;
} lmcu_pool_t;

/* MEAN over the axes H, W (or any contiguous run of axes): x [outer][count][inner] -> y [outer][inner] */
typedef struct {
    int32_t outer, count, inner;
    int32_t input_zero_point, output_zero_point;
    int32_t multiplier, shift;   /* of s_x / s_y, as the oracle folds the count in */
    float inverse_count;         /* fl32(1 / count): backward */
} lmcu_mean_t;

/* Two operands over an output [dims[0]]...[dims[3]]; a stride of 0 repeats an operand along that dimension. */
typedef struct {
    int32_t dims[4], a_strides[4], b_strides[4];
} lmcu_broadcast_t;

/* y = clamp(a + b) or clamp(a - b) with both rescaled (left_shift 20) */
typedef struct {
    lmcu_broadcast_t shape;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t a_multiplier, a_shift, b_multiplier, b_shift, output_multiplier, output_shift, left_shift;
    lmcu_clamp_t clamp;
} lmcu_add_t;

/* x [d0][d1][d2][d3] -> y padded by before/after in each dimension with `value` */
typedef struct {
    int32_t dims[4], before[4], after[4];
    int32_t value;
} lmcu_pad_t;

/* rows of `depth`; fixed-point, as the oracle's reference kernel */
typedef struct {
    int32_t rows, depth;
    int32_t input_multiplier, input_left_shift, diff_min;
    int32_t output_zero_point;   /* -128 for int8 */
    float beta;                  /* backward */
} lmcu_softmax_t;

typedef struct {
    int32_t count;
    float scale;
    int32_t zero_point;
} lmcu_affine_t;

/* int8/uint8 -> int8/uint8 rescale (gemmlowp multiplier) */
typedef struct {
    int32_t count;
    int32_t input_zero_point, output_zero_point, multiplier, shift;
    int32_t output_min, output_max;
} lmcu_requantize_t;

/* ---- kernels. `scratch` is LMCU_ALIGNED(4) memory from the planner; the size is stated beside each (bytes). Input and
 * output do not overlap unless a line here says that y may be x: then both begin at the same address. Where dx may be dy,
 * it replaces dy instead of adding to it. ---- */

/* k4: k rounded up to a multiple of 4. scratch: 2 * k4. y may be x where batch is 1 or m <= k */
void lmcu_dense_forward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch);
/* dy is masked in place. dx NULL at the first adapted layer. scratch: 2 * k4, and unless dx is NULL + 4 * k */
void lmcu_dense_backward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                         float *dx, void *scratch);

/* k = kernel_h * kernel_w * in_c, m = out_c. scratch: 4 * k4 forward, 2 * k4 backward, + k4 where in_c is no multiple of 4
 * and the kernel is larger than 1 x 1; with an adapter forward + 8 * m and + 4 * rank * (k + m), in mode i16 backward only;
 * backward, unless dx is NULL, + 4 * k. y may be x where the kernel is 1 x 1 with stride 1 and no padding, and out_c <= in_c;
 * dx may be dy there where in_c <= out_c */
void lmcu_conv2d_forward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch);
void lmcu_conv2d_backward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                          float *dx, void *scratch);
/* dy [out_c] is the gradient at every position, and stays; scratch + 4 * m */
void lmcu_conv2d_backward_shared(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y,
                                 const float *dy, float *dx, void *scratch);

void lmcu_depthwise_forward(const lmcu_depthwise_t *p, const int8_t *x, int8_t *y);
void lmcu_depthwise_backward(const lmcu_depthwise_t *p, const int8_t *y, float *dy, float *dx);
/* dy becomes dx: multiplier 1, input and output of one size. scratch: 4 * LMCU_DEPTHWISE_BLOCK * out_h * out_w */
void lmcu_depthwise_backward_in_place(const lmcu_depthwise_t *p, const int8_t *y, float *dy, void *scratch);

/* pooling, forward: y may be x where pad_top and pad_left are 0 */
void lmcu_average_pool_forward(const lmcu_pool_t *p, const int8_t *x, int8_t *y);
void lmcu_average_pool_backward(const lmcu_pool_t *p, const int8_t *y, float *dy, float *dx);
void lmcu_max_pool_forward(const lmcu_pool_t *p, const int8_t *x, int8_t *y);
/* the gradient goes to the first maximum of the window in row-major order */
void lmcu_max_pool_backward(const lmcu_pool_t *p, const int8_t *x, const int8_t *y, float *dy, float *dx);

void lmcu_mean_forward(const lmcu_mean_t *p, const int8_t *x, int8_t *y);
void lmcu_mean_backward(const lmcu_mean_t *p, const int8_t *y, float *dy, float *dx);
/* of a mean over all positions: dx [channels] = what each position gets, share * masked dy. dx may be dy, and replaces */
void lmcu_mean_backward_shared(const lmcu_clamp_t *clamp, int32_t channels, float share, const int8_t *y, const float *dy,
                               float *dx);

/* y may be an operand that is not broadcast, here and in the other kernels of two operands */
void lmcu_add_forward(const lmcu_add_t *p, const int8_t *a, const int8_t *b, int8_t *y);
/* da or db may be NULL, as is one whose gradient is dy after masking; da == db when a tensor is added to itself */
void lmcu_add_backward(const lmcu_add_t *p, const int8_t *y, float *dy, float *da, float *db);

void lmcu_pad_forward(const lmcu_pad_t *p, const int8_t *x, int8_t *y);
void lmcu_pad_backward(const lmcu_pad_t *p, const float *dy, float *dx);

void lmcu_softmax_forward(const lmcu_softmax_t *p, const int8_t *x, int8_t *y);

/* y may be x, here and in the next ones but dequantize */
void lmcu_quantize_forward(const lmcu_affine_t *p, const float *x, int8_t *y);
void lmcu_dequantize_forward(const lmcu_affine_t *p, const int8_t *x, float *y);
/* x and y are int8 or uint8 as the flags say; one kernel for the edges of a model and for rescaling inside */
void lmcu_requantize_i8_i8(const lmcu_requantize_t *p, const int8_t *x, int8_t *y);
void lmcu_requantize_u8_i8(const lmcu_requantize_t *p, const uint8_t *x, int8_t *y);
void lmcu_requantize_i8_u8(const lmcu_requantize_t *p, const int8_t *x, uint8_t *y);

/* ---- depth-first execution (stripe.c) ---- */

/* Rows [first, end) of a map, in the arena from `offset` on. */
typedef struct {
    uint32_t offset;
    int32_t row_bytes, first, end;
} lmcu_band_t;

/* A run of operators made row by row. bands: of each operator's output, then of what they read from outside; they are
 * copied to `table` in the arena. order: pairs of an operator and of the rows that its full window drops before. */
typedef struct {
    const lmcu_band_t *bands;
    const uint8_t *order;
    void (*row)(uint32_t op, const lmcu_band_t *bands);
    int32_t band_count, events;
    uint32_t table;
} lmcu_stripe_t;

void lmcu_stripe_run(const lmcu_stripe_t *s, uint8_t *arena);

/* Each makes row y->end of its output from the rows of its inputs that are in memory; scratch as the whole kernel. */
void lmcu_conv2d_row(const lmcu_conv2d_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y, void *scratch);
void lmcu_depthwise_row(const lmcu_depthwise_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y);
void lmcu_average_pool_row(const lmcu_pool_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y);
void lmcu_max_pool_row(const lmcu_pool_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y);
void lmcu_add_row(const lmcu_add_t *p, uint8_t *arena, const lmcu_band_t *a, const lmcu_band_t *b, const lmcu_band_t *y);
void lmcu_pad_row(const lmcu_pad_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y);

/* ---- elementwise ---- */

/* y = clamp(a * b); scales are for the backward pass */
typedef struct {
    lmcu_broadcast_t shape;
    int32_t a_zero_point, b_zero_point, output_zero_point, multiplier, shift;
    float a_scale, b_scale;
    lmcu_clamp_t clamp;
} lmcu_mul_t;

/* y = clamp((a - b)^2), both rescaled with 7 bits of headroom */
typedef struct {
    lmcu_broadcast_t shape;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t a_multiplier, a_shift, b_multiplier, b_shift, output_multiplier, output_shift;
    float a_scale, b_scale;
    lmcu_clamp_t clamp;
} lmcu_squared_difference_t;

typedef struct {
    lmcu_broadcast_t shape;
    int32_t sign; /* 1: maximum, -1: minimum */
} lmcu_extremum_t;

/* shape: x is operand a, alpha operand b */
typedef struct {
    lmcu_broadcast_t shape;
    int32_t input_zero_point, alpha_zero_point, output_zero_point;
    int32_t multiplier, shift, alpha_multiplier, alpha_shift;
    float alpha_scale;
    lmcu_clamp_t clamp;
} lmcu_prelu_t;

/* y = table[x + 128]; slopes: dy/dx in real units, NULL without a backward pass */
typedef struct {
    int32_t count;
    const int8_t *table;  /* [256] */
    const float *slopes;  /* [256] */
} lmcu_lookup_t;

/* y may be x; dx may be dy */
void lmcu_lookup_forward(const lmcu_lookup_t *p, const int8_t *x, int8_t *y);
void lmcu_lookup_row(const lmcu_lookup_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y);
void lmcu_lookup_backward(const lmcu_lookup_t *p, const int8_t *x, float *dy, float *dx);

/* da or db may be NULL; da == db when both operands are one tensor. A broadcast operand's gradient is summed in the output's
 * order. */
void lmcu_sub_forward(const lmcu_add_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void lmcu_sub_backward(const lmcu_add_t *p, const int8_t *y, float *dy, float *da, float *db);
void lmcu_mul_forward(const lmcu_mul_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void lmcu_mul_backward(const lmcu_mul_t *p, const int8_t *a, const int8_t *b, const int8_t *y, float *dy, float *da, float *db);
void lmcu_squared_difference_forward(const lmcu_squared_difference_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void lmcu_squared_difference_backward(const lmcu_squared_difference_t *p, const int8_t *a, const int8_t *b, const int8_t *y,
                                      float *dy, float *da, float *db);
void lmcu_extremum_forward(const lmcu_extremum_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void lmcu_extremum_backward(const lmcu_extremum_t *p, const int8_t *a, const int8_t *b, float *dy, float *da, float *db);
void lmcu_prelu_forward(const lmcu_prelu_t *p, const int8_t *x, const int8_t *alpha, int8_t *y);
void lmcu_prelu_backward(const lmcu_prelu_t *p, const int8_t *x, const int8_t *alpha, const int8_t *y, float *dy, float *dx);

/* y int8, or uint8 where output_min is 0; dx may be dy */
void lmcu_requantize_backward(const lmcu_requantize_t *p, const int8_t *y, float *dy, float *dx);

/* ---- attention ---- */

/* y[n][i][j] = clamp(RQ(bias[j] + sum_k (a[n][i][k] - z_a) (b[n][j][k] - z_b)) + z_y). Steps count elements between
 * neighbours along a dimension of a or b; a batch dimension of step 0 is broadcast. a_row and a_depth, b_column and b_depth:
 * one of the two is 1. */
typedef struct {
    int32_t batch[3], rows, columns, depth;
    int32_t a_batch[3], b_batch[3], a_row, a_depth, b_column, b_depth;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    float a_scale, b_scale;      /* backward */
    int32_t multiplier, shift;   /* gemmlowp's double rounding (BATCH_MATMUL), where round.multiplier is NULL */
    lmcu_clamp_t clamp;
    lmcu_round_t round;          /* half away from zero (FULLY_CONNECTED) */
    const int32_t *bias;         /* [columns] or NULL */
} lmcu_matmul_t;

/* scratch of forward: align4(2 * depth) + 4 * columns bytes */
void lmcu_matmul_forward(const lmcu_matmul_t *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);
/* da or db may be NULL; da == db when a tensor is multiplied by itself */
void lmcu_matmul_backward(const lmcu_matmul_t *p, const int8_t *a, const int8_t *b, const int8_t *y, float *dy, float *da,
                          float *db);
void lmcu_softmax_backward(const lmcu_softmax_t *p, const int8_t *y, float *dy, float *dx);

/* ---- moving elements ---- */

/* One block of elements: y[y_start + i . y_strides] = x[x_start + i . x_strides] for all i in dims. A concatenation is one
 * such copy an input, a split one an output. */
typedef struct {
    int32_t dims[5];
    int32_t x_start, y_start;
    int32_t x_strides[5], y_strides[5];
} lmcu_strided_copy_t;

void lmcu_strided_copy_forward(const lmcu_strided_copy_t *p, const int8_t *x, int8_t *y);
void lmcu_strided_copy_backward(const lmcu_strided_copy_t *p, const float *dy, float *dx);

/* y[i] = table[row of x[i]]; table [rows][width], y [count][width]. wraps: a negative index counts from the end. An index
 * outside the table takes the nearest row. row_of [256] for int8 indices, else NULL. */
typedef struct {
    int32_t count, rows, width, wraps;
    const int8_t *table;
    const int32_t *row_of;
} lmcu_embedding_t;

void lmcu_embedding_i32(const lmcu_embedding_t *p, const int32_t *x, int8_t *y);
void lmcu_embedding_f32(const lmcu_embedding_t *p, const float *x, int8_t *y);
void lmcu_embedding_i8(const lmcu_embedding_t *p, const int8_t *x, int8_t *y);

/* y[i] = x[index[0][i0]][index[1][i1]][index[2][i2]][index[3][i3]]; x [in], y [out]; index[d] NULL: all, in order */
typedef struct {
    int32_t in[4], out[4];
    const uint16_t *index[4];
} lmcu_take_t;

void lmcu_take_forward(const lmcu_take_t *p, const int8_t *x, int8_t *y);
/* adds in row-major order of y */
void lmcu_take_backward(const lmcu_take_t *p, const float *dy, float *dx);

/* x [in_h][in_w][channels] -> y [out_h][out_w][channels]; a line of rows [out_h][3] and columns [out_w][3]: first and second
 * neighbour, weight of the second in 1/1024 (negative only where both are the same) */
typedef struct {
    int32_t in_w, out_h, out_w, channels;
    const int16_t *rows, *columns;
} lmcu_resize_bilinear_t;

void lmcu_resize_bilinear_forward(const lmcu_resize_bilinear_t *p, const int8_t *x, int8_t *y);
/* adds in row-major order of y, its neighbours rows first, then columns */
void lmcu_resize_bilinear_backward(const lmcu_resize_bilinear_t *p, const int8_t *y, const float *dy, float *dx);

/* ---- reductions, transposed convolution, logarithm of softmax ---- */

/* y [kept] from x [kept and reduced], both given by sizes and strides of x in elements */
typedef struct {
    int32_t kept[3], kept_strides[3], reduced[3], reduced_strides[3];
    int32_t count;               /* elements an output is made of */
    int32_t input_zero_point, output_zero_point;
    int32_t multiplier, shift;   /* mean: as lmcu_mean_t */
    float scale, bias;           /* sum: fl(s_x / s_y), fl(fl(-z_x * scale) * count) */
    float factor;                /* backward: 1 for a sum, fl(1 / count) for a mean */
} lmcu_reduce_t;

void lmcu_reduce_sum_forward(const lmcu_reduce_t *p, const int8_t *x, int8_t *y);
void lmcu_reduce_mean_forward(const lmcu_reduce_t *p, const int8_t *x, int8_t *y);
void lmcu_reduce_max_forward(const lmcu_reduce_t *p, const int8_t *x, int8_t *y);
/* of sum and mean */
void lmcu_reduce_backward(const lmcu_reduce_t *p, const int8_t *y, float *dy, float *dx);
/* the gradient goes to the first maximum in row-major order of the reduced dimensions */
void lmcu_reduce_max_backward(const lmcu_reduce_t *p, const int8_t *x, const float *dy, float *dx);

/* x [in_h][in_w][in_c], w [out_c][kernel_h][kernel_w][in_c]: x(i, j) reaches y(i * stride_h - pad_top + ky, ...). Dilation
 * is not used. */
void lmcu_transpose_conv_forward(const lmcu_conv2d_t *p, const int8_t *x, int8_t *y);
/* dy is masked and scaled in place */
void lmcu_transpose_conv_backward(const lmcu_conv2d_t *p, const int8_t *y, float *dy, float *dx);

/* rows of `depth`; reverse: what the multiplier undoes, for the lowest input that can be represented */
typedef struct {
    int32_t rows, depth;
    int32_t input_multiplier, input_shift, reverse_multiplier, reverse_shift, diff_min;
} lmcu_log_softmax_t;

void lmcu_log_softmax_forward(const lmcu_log_softmax_t *p, const int8_t *x, int8_t *y);

#endif
