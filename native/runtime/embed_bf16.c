/* bf16 is the upper half of an f32, so a number is widened by a shift. */
#include "embed_bf16.h"

#include <string.h>

#include "smesim/layout_lowp.h"

static float widened(uint16_t number) {
    const uint32_t bits = (uint32_t)number << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void sms_widen_bf16(const uint16_t *numbers, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++)
        out[i] = widened(numbers[i]);
}

void sms_embed_rows_bf16(const int32_t *ids, int64_t rows, const uint16_t *table, int64_t ldt, int64_t dim, float *y,
                         int64_t ldy) {
    for (int64_t r = 0; r < rows; r++)
        sms_widen_bf16(table + ids[r] * ldt, dim, y + r * ldy);
}

void sms_embed_rhs_bf16(const int32_t *ids, int64_t rows, const uint16_t *table, int64_t dim, float *y, int64_t ldy) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < dim; i++)
            y[r * ldy + i] = widened(table[sms_rhs_grouped_offset(ids[r], i, dim, SMS_BF16_GROUP)]);
}
