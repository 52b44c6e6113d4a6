/* Packs weights as a load does, from a file's formats and from f32, with the portable kernels, so that a sanitizer can
 * watch that neither more of the rows is read than there is nor more written than the packed matrix takes.
 *
 *   packing_driver FORMAT N K PIECE < ROWS > PACKED
 *
 * FORMAT is what ROWS are in: f32 (packed as f32), bf16 (f32, rounded and packed as that), q8_0, q4_0, q4_1 (blocks of
 * GGUF), or to_q8_0, to_q4_0, to_q4_1 (f32, quantised). PIECE rows are packed at a time, each from memory of its own. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smesim/blocks.h"
#include "smesim/kernels.h"
#include "smesim/lowp.h"

extern const struct sms_kernels sms_kernels_portable;
extern const struct sms_lowp sms_lowp_portable;
extern const struct sms_blocks sms_blocks_portable;

static const char *const formats[] = {"f32", "bf16", "q8_0", "q4_0", "q4_1", "to_q8_0", "to_q4_0", "to_q4_1"};
enum format { F32, BF16, Q8_0, Q4_0, Q4_1, TO_Q8_0, TO_Q4_0, TO_Q4_1, FORMATS };

struct matrix {
    int64_t n, k;
    uint8_t *numbers; /* with the scales behind them, where there are some */
    uint16_t *scales;
};

static int64_t row_bytes(enum format format, int64_t k) {
    const int64_t blocks = k / SMS_BLOCK;
    switch (format) {
    case Q8_0: return blocks * 34;
    case Q4_0: return blocks * 18;
    case Q4_1: return blocks * 20;
    default: return k * (int64_t)sizeof(float);
    }
}

/* Bytes of the packed numbers, and of the scales. */
static void packed_bytes(enum format format, int64_t n, int64_t k, int64_t bytes[2]) {
    const int64_t scales = sms_rhs_scales_size(n, k) * (int64_t)sizeof(uint16_t);
    bytes[1] = format == Q4_1 || format == TO_Q4_1 ? 2 * scales : format == F32 || format == BF16 ? 0 : scales;
    switch (format) {
    case F32: bytes[0] = sms_rhs_size(n, k) * (int64_t)sizeof(float); break;
    case BF16: bytes[0] = sms_rhs_grouped_size(n, k, SMS_BF16_GROUP) * (int64_t)sizeof(uint16_t); break;
    case Q8_0:
    case TO_Q8_0: bytes[0] = sms_rhs_q8_size(n, k); break;
    default: bytes[0] = sms_rhs_q4_size(n, k);
    }
}

/* The panels from `panel` on; `rows` is where row 0 would be. */
static void pack(enum format format, const void *rows, const struct matrix *m, int64_t panel, int64_t end) {
    const struct sms_blocks *blocks = &sms_blocks_portable;
    const int64_t stride = row_bytes(format, m->k), n = m->n, k = m->k;
    int8_t *bytes = (int8_t *)m->numbers;
    switch (format) {
    case F32: sms_kernels_portable.pack_rhs(rows, k, n, k, panel, end, (float *)(void *)m->numbers); break;
    case BF16: sms_lowp_portable.pack_rhs_bf16(rows, k, n, k, panel, end, (uint16_t *)(void *)m->numbers); break;
    case Q8_0: blocks->repack_rhs_q8(rows, stride, n, k, panel, end, bytes, m->scales); break;
    case Q4_0: blocks->repack_rhs_q4(rows, stride, n, k, panel, end, m->numbers, m->scales); break;
    case Q4_1: blocks->repack_rhs_q4_1(rows, stride, n, k, panel, end, m->numbers, m->scales); break;
    case TO_Q8_0: blocks->pack_rhs_q8(rows, k, n, k, panel, end, bytes, m->scales); break;
    case TO_Q4_0: blocks->pack_rhs_q4(rows, k, n, k, panel, end, m->numbers, m->scales); break;
    default: blocks->pack_rhs_q4_1(rows, k, n, k, panel, end, m->numbers, m->scales);
    }
}

int main(int argc, char **argv) {
    int format = 0;
    while (argc == 5 && format < FORMATS && strcmp(argv[1], formats[format]) != 0)
        format++;
    if (argc != 5 || format == FORMATS)
        return 2;
    struct matrix m = {.n = atol(argv[2]), .k = atol(argv[3])};
    const int64_t piece = atol(argv[4]), stride = row_bytes((enum format)format, m.k);
    int64_t bytes[2];
    packed_bytes((enum format)format, m.n, m.k, bytes);
    m.numbers = malloc((size_t)bytes[0]);
    m.scales = malloc((size_t)bytes[1]);
    for (int64_t row = 0; row < m.n; row += piece) {
        const int64_t count = m.n - row < piece ? m.n - row : piece;
        /* A whole matrix of which only these rows may be touched; the sanitizer knows only what was allocated, so rows
         * before them count as theirs, and those behind them are not there. */
        uint8_t *rows = malloc((size_t)((row + count) * stride));
        if (!rows || fread(rows + row * stride, 1, (size_t)(count * stride), stdin) != (size_t)(count * stride))
            return 2;
        pack((enum format)format, rows, &m, row / SMS_NR, sms_ceil_div(row + count, SMS_NR));
        free(rows);
    }
    const int written = fwrite(m.numbers, 1, (size_t)bytes[0], stdout) == (size_t)bytes[0] &&
                        fwrite(m.scales, 1, (size_t)bytes[1], stdout) == (size_t)bytes[1];
    free(m.numbers);
    free(m.scales);
    return written ? 0 : 2;
}
