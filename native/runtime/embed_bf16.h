/* Numbers in bf16 as f32: rows of a table, and a single row. They read little and compute nothing, so they are plain C
 * for all instruction sets. */
#ifndef SMESIM_EMBED_BF16_H
#define SMESIM_EMBED_BF16_H

#include <stdint.h>

/* y[r] = table[ids[r]], from a row-major table or from an rhs_bf16_n16k2 one (tied embeddings). */
void sms_embed_rows_bf16(const int32_t *ids, int64_t rows, const uint16_t *table, int64_t ldt, int64_t dim, float *y,
                         int64_t ldy);
void sms_embed_rhs_bf16(const int32_t *ids, int64_t rows, const uint16_t *table, int64_t dim, float *y, int64_t ldy);

void sms_widen_bf16(const uint16_t *numbers, int64_t n, float *out);

#endif
