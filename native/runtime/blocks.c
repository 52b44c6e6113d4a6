#include "blocks.h"

#include <string.h>

#include "experts.h"

enum { WORD_BYTES = SMS_S8_GROUP, BLOCK_WORDS = SMS_BLOCK / SMS_S8_GROUP };

/* Weights of an operator or of one of its experts: n rows of depth k. */
struct rhs {
    const void *numbers;
    const uint16_t *scales;
};

int sms_in_blocks(int32_t number) {
    return number == SMS_NUMBER_Q8_0 || number == SMS_NUMBER_Q4_0 || number == SMS_NUMBER_Q4_1;
}

static int64_t scales_a_block(int32_t number) { return number == SMS_NUMBER_Q4_1 ? 2 : 1; }

static int64_t numbers_bytes(int32_t number, int64_t n, int64_t k) {
    return number == SMS_NUMBER_Q8_0 ? sms_rhs_q8_size(n, k) : sms_rhs_q4_size(n, k);
}

static int64_t matrix_bytes(int32_t number, int64_t n, int64_t k) {
    const int64_t scales = sms_rhs_scales_size(n, k) * scales_a_block(number);
    return numbers_bytes(number, n, k) + scales * (int64_t)sizeof(uint16_t);
}

static struct rhs weights(const struct sms_run *run, const struct sms_op *op, int64_t matrix, int64_t n, int64_t k) {
    const int32_t number = op->rhs_dtype;
    const uint8_t *from = (const uint8_t *)run->buffers[op->weight] + matrix * matrix_bytes(number, n, k);
    return (struct rhs){from, (const uint16_t *)(const void *)(from + numbers_bytes(number, n, k))};
}

/* Where the scales of a left operand of m rows begin. */
static float *lhs_scales(void *lhs, int64_t m, int64_t k) {
    return (float *)(void *)((uint8_t *)lhs + sms_lhs_q8_size(m, k));
}

void sms_run_quantize(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                      const float *x, int64_t ld) {
    void *out = run->buffers[op->packed_out];
    run->blocks[worker]->quantize_lhs_q8(x, ld, op->m, op->n, op->lhs_mr, t->begin0, t->end0, out,
                                         lhs_scales(out, op->m, op->n));
}

/* Rows of quantised activations, one after another, into the strips begin .. end of m rows; `chosen` says which row
 * each of the m is, all in order where it is NULL. */
static void pack_rows(const uint8_t *numbers, const float *scales, const int32_t *chosen, int64_t m, int64_t k, int64_t mr,
                      int64_t begin, int64_t end, uint8_t *out, float *out_scales) {
    const int64_t strips = sms_lhs_strips(m, mr), blocks = sms_depth_blocks(k), row_bytes = blocks * SMS_BLOCK;
    for (int64_t strip = begin; strip < end; strip++) {
        const int64_t row0 = sms_lhs_strip_row(strip, m, strips), row1 = sms_lhs_strip_row(strip + 1, m, strips);
        const int64_t height = row1 - row0;
        for (int64_t r = 0; r < height; r++) {
            const int64_t row = chosen ? chosen[row0 + r] : row0 + r;
            const uint8_t *from = numbers + row * row_bytes;
            uint8_t *to = out + row0 * row_bytes + r * WORD_BYTES;
            for (int64_t word = 0; word < blocks * BLOCK_WORDS; word++)
                memcpy(to + word * height * WORD_BYTES, from + word * WORD_BYTES, WORD_BYTES);
            for (int64_t block = 0; block < blocks; block++)
                out_scales[row0 * blocks + block * height + r] = scales[row * blocks + block];
        }
    }
}

void sms_run_pack_q8(const struct sms_run *run, const struct sms_op *op, const struct sms_task *t) {
    void *from = run->buffers[op->input0], *to = run->buffers[op->packed];
    pack_rows(from, lhs_scales(from, op->m, op->k), NULL, op->m, op->k, op->lhs_mr, t->begin0, t->end0, to,
              lhs_scales(to, op->m, op->k));
}

void sms_run_expert_pack_q8(const struct sms_run *run, const struct sms_op *op, const struct sms_task *t) {
    const int64_t blocks = sms_depth_blocks(op->k), row_bytes = blocks * SMS_BLOCK;
    const int32_t *tokens = run->buffers[op->input2];
    uint8_t *from = run->buffers[op->input0], *to = run->buffers[op->packed];
    const float *scales = lhs_scales(from, run->buffer_facts[op->input0].rows, op->k);
    float *out_scales = lhs_scales(to, op->m, op->k);
    for (int64_t expert = t->begin2; expert < t->end2; expert++) {
        const int64_t first = sms_first_row_of_expert(run, op, expert);
        const int64_t rows = sms_first_row_of_expert(run, op, expert + 1) - first;
        const int64_t skipped = op->gathers ? 0 : first;
        pack_rows(from + skipped * row_bytes, scales + skipped * blocks, op->gathers ? tokens + first : NULL, rows, op->k,
                  op->lhs_mr, 0, sms_lhs_strips(rows, op->lhs_mr), to + first * row_bytes, out_scales + first * blocks);
    }
}

/* The product of m rows of strips, whose numbers and scales begin at lhs and lhs_scale. */
static void product(const struct sms_blocks *kernels, const struct sms_op *op, const struct sms_task *t,
                    const void *lhs, const float *lhs_scale, int64_t m, struct rhs rhs, const float *bias, float *c) {
    const int64_t n = op->n, k = op->k, mr = op->lhs_mr;
    switch (op->rhs_dtype) {
    case SMS_NUMBER_Q8_0:
        kernels->gemm_q8(lhs, lhs_scale, m, k, mr, rhs.numbers, rhs.scales, n, bias, c, n, t->begin0, t->end0, t->begin1,
                         t->end1);
        return;
    case SMS_NUMBER_Q4_0:
        kernels->gemm_q4(lhs, lhs_scale, m, k, mr, rhs.numbers, rhs.scales, n, bias, c, n, t->begin0, t->end0, t->begin1,
                         t->end1);
        return;
    default:
        kernels->gemm_q4_1(lhs, lhs_scale, m, k, mr, rhs.numbers, rhs.scales, n, bias, c, n, t->begin0, t->end0,
                           t->begin1, t->end1);
    }
}

static void vector_product(const struct sms_blocks *kernels, const struct sms_op *op, const struct sms_task *t,
                           const void *x, const float *x_scale, struct rhs rhs, const float *bias, float *y) {
    const int64_t n = op->n, k = op->k;
    switch (op->rhs_dtype) {
    case SMS_NUMBER_Q8_0:
        kernels->gemv_q8(x, x_scale, rhs.numbers, rhs.scales, n, k, bias, y, t->begin1, t->end1);
        return;
    case SMS_NUMBER_Q4_0:
        kernels->gemv_q4(x, x_scale, rhs.numbers, rhs.scales, n, k, bias, y, t->begin1, t->end1);
        return;
    default:
        kernels->gemv_q4_1(x, x_scale, rhs.numbers, rhs.scales, n, k, bias, y, t->begin1, t->end1);
    }
}

void sms_run_block_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    void *lhs = run->buffers[op->packed];
    const float *bias = op->bias < 0 ? NULL : run->buffers[op->bias];
    product(run->blocks[worker], op, t, lhs, lhs_scales(lhs, op->m, op->k), op->m, weights(run, op, 0, op->n, op->k), bias,
            run->buffers[op->output0]);
}

void sms_run_block_gemv(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    void *x = run->buffers[op->packed];
    const float *bias = op->bias < 0 ? NULL : run->buffers[op->bias];
    vector_product(run->blocks[worker], op, t, x, lhs_scales(x, 1, op->k), weights(run, op, 0, op->n, op->k), bias,
                   run->buffers[op->output0]);
}

void sms_run_block_expert(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    const int64_t blocks = sms_depth_blocks(op->k);
    const int32_t *expert_of = (const int32_t *)run->buffers[op->input2] + 2 * (int64_t)op->m;
    uint8_t *lhs = run->buffers[op->packed];
    const float *scales = lhs_scales(lhs, op->m, op->k);
    for (int64_t expert = t->begin2; expert < t->end2; expert++) {
        const int64_t first = sms_first_row_of_expert(run, op, expert);
        const int64_t rows = sms_first_row_of_expert(run, op, expert + 1) - first;
        if (rows == 0)
            continue;
        const struct sms_task task = sms_task_of_expert(op, t, rows);
        const uint8_t *numbers = lhs + first * blocks * SMS_BLOCK;
        const struct rhs rhs = weights(run, op, expert_of[first], op->n, op->k);
        float *out = (float *)run->buffers[op->output0] + first * op->n;
        if (rows == 1)
            vector_product(run->blocks[worker], op, &task, numbers, scales + first * blocks, rhs, NULL, out);
        else
            product(run->blocks[worker], op, &task, numbers, scales + first * blocks, rows, rhs, NULL, out);
    }
}

/* An f16 as f32. Its exponent is moved by a product, which brings denormals to where they belong as well. */
static float f16(uint16_t number) {
    enum { MAGNITUDE = 0x7fff, LARGEST = 0x7bff, SIGN = 0x8000, DROPPED_BITS = 13 };
    const float EXPONENT_SHIFT = 0x1p112f;
    uint32_t bits = (uint32_t)(number & MAGNITUDE) << DROPPED_BITS;
    float x;
    memcpy(&x, &bits, sizeof x);
    x *= EXPONENT_SHIFT;
    memcpy(&bits, &x, sizeof bits);
    bits |= (uint32_t)(number & SIGN) << 16 | ((number & MAGNITUDE) > LARGEST ? 0x7f800000u : 0);
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int32_t nibble(uint8_t byte, int is_high) { return is_high ? byte >> 4 : byte & 0xf; }

/* Number i of a block of Q4_0, whose nibbles are two's complement in packed weights and offset by 8 in GGUF's rows. */
static int32_t signed_nibble(int32_t bits, int is_packed) { return is_packed ? (bits ^ 8) - 8 : bits - 8; }

static float value(int32_t number, int32_t integer, float scale, float least) {
    return number == SMS_NUMBER_Q4_1 ? (float)integer * scale + least : (float)integer * scale;
}

/* One row of packed weights: its words lie SMS_NR words apart, of 4 bits two in one. */
static void packed_row(int32_t number, struct rhs table, int64_t row, int64_t dim, float *y) {
    const int64_t blocks = sms_depth_blocks(dim), column = row % SMS_NR;
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t at = row / SMS_NR * blocks + block;
        const uint16_t *scales = table.scales + at * SMS_NR * scales_a_block(number) + column;
        const float scale = f16(scales[0]), least = number == SMS_NUMBER_Q4_1 ? f16(scales[SMS_NR]) : 0.0f;
        const int64_t count = dim - block * SMS_BLOCK < SMS_BLOCK ? dim - block * SMS_BLOCK : SMS_BLOCK;
        for (int64_t i = 0; i < count; i++) {
            const int64_t word = i / SMS_S8_GROUP, byte = i % SMS_S8_GROUP;
            int32_t integer;
            if (number == SMS_NUMBER_Q8_0) {
                const int8_t *numbers = table.numbers;
                integer = numbers[(at * BLOCK_WORDS + word) * SMS_NR * WORD_BYTES + column * WORD_BYTES + byte];
            } else {
                const uint8_t *bytes = table.numbers;
                integer = nibble(bytes[(at * BLOCK_WORDS / 2 + word / 2) * SMS_NR * WORD_BYTES + column * WORD_BYTES + byte],
                                 word % 2);
                integer = number == SMS_NUMBER_Q4_0 ? signed_nibble(integer, 1) : integer;
            }
            y[block * SMS_BLOCK + i] = value(number, integer, scale, least);
        }
    }
}

/* One row of GGUF's blocks. */
static void block_row(int32_t number, const uint8_t *row, int64_t dim, float *y) {
    enum { HALF = SMS_BLOCK / 2 };
    const int64_t scale_bytes = scales_a_block(number) * (int64_t)sizeof(uint16_t);
    const int64_t bytes = scale_bytes + (number == SMS_NUMBER_Q8_0 ? SMS_BLOCK : HALF);
    for (int64_t block = 0; block < dim / SMS_BLOCK; block++, row += bytes) {
        uint16_t scales[2] = {0};
        memcpy(scales, row, (size_t)scale_bytes);
        const uint8_t *numbers = row + scale_bytes;
        for (int64_t i = 0; i < SMS_BLOCK; i++) {
            int32_t integer = (int8_t)numbers[number == SMS_NUMBER_Q8_0 ? i : 0];
            if (number != SMS_NUMBER_Q8_0)
                integer = nibble(numbers[i % HALF], i >= HALF);
            integer = number == SMS_NUMBER_Q4_0 ? signed_nibble(integer, 0) : integer;
            y[block * SMS_BLOCK + i] = value(number, integer, f16(scales[0]), f16(scales[1]));
        }
    }
}

void sms_run_block_embed(const struct sms_run *run, const struct sms_op *op, const struct sms_task *t) {
    const struct sms_buffer *facts = &run->buffer_facts[op->weight];
    const int32_t *ids = run->buffers[op->input0];
    const struct rhs table = weights(run, op, 0, facts->rows, facts->columns);
    const int64_t row_bytes = facts->n_bytes / facts->rows;
    for (int64_t r = t->begin0; r < t->end0; r++) {
        float *y = (float *)run->buffers[op->output0] + r * op->n;
        if (facts->layout == SMS_RHS_PACKED)
            packed_row(op->rhs_dtype, table, ids[r], op->n, y);
        else
            block_row(op->rhs_dtype, (const uint8_t *)run->buffers[op->weight] + ids[r] * row_bytes, op->n, y);
    }
}
