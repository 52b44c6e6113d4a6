/* Caches of keys and values in blocks of Q8_0: a row made into blocks when it is appended, and panels or rows made
 * f32 again when attention reads them. A product of an f16 and a byte is exact in f32, so every table gives the same
 * bits. */
#ifndef SMESIM_BLOCKS_CACHE_H
#define SMESIM_BLOCKS_CACHE_H

#include "pack.h"

static void sms_quantize_row_q8(const float *x, int64_t k, int8_t *out, uint16_t *scale) {
    for (int64_t block = 0; block < k / SMS_BLOCK; block++) {
        sms_block_words words;
        uint16_t scales[2];
        sms_quantize_block(SMS_Q8, x + block * SMS_BLOCK, SMS_BLOCK, words, scales);
        memcpy(out + block * SMS_BLOCK, words, sizeof words);
        scale[block] = scales[0];
    }
}

/* Byte `at` of each word, with its sign. */
SMS_INLINE vi q_byte(vi words, const int at) { return (vi)((vu)words << (24 - 8 * at)) >> 24; }

static void sms_widen_rhs_q8(const int8_t *rhs, const uint16_t *scale, int64_t k, int64_t panel0, int64_t panel1,
                             float *out) {
    const sms_word *words = (const sms_word *)rhs + panel0 * SMS_NR * k / SMS_S8_GROUP;
    const uint16_t *scales = scale + panel0 * SMS_NR * (k / SMS_BLOCK);
    const int64_t ahead = (panel1 - panel0) * SMS_NR * k / SMS_S8_GROUP; /* words to the next block of keys */
    for (int64_t block = 0; block < (panel1 - panel0) * (k / SMS_BLOCK); block++) {
        for (int j = 0; j < SMS_PANEL_VECTORS; j++) {
            const vf factor = w_halves(scales + j * SMS_LANES);
            for (int word = 0; word < SMS_BLOCK_WORDS; word++) {
                if (j == 0) /* the words of a panel's columns are a cache line */
                    __builtin_prefetch(words + ahead + word * SMS_NR, 0, 2);
                const vi four = w_load(words + word * SMS_NR + j * SMS_LANES);
                float *to = out + word * SMS_S8_GROUP * SMS_NR + j * SMS_LANES;
                SMS_UNROLL(4)
                for (int at = 0; at < SMS_S8_GROUP; at++)
                    v_store(to + at * SMS_NR, w_to_float(q_byte(four, at)) * factor);
            }
        }
        words += SMS_BLOCK_WORDS * SMS_NR;
        scales += SMS_NR;
        out += SMS_BLOCK * SMS_NR;
    }
}

/* Neighbouring bytes as integers. */
SMS_INLINE vi q_bytes(const int8_t *p) {
#if SMS_LANES == 1
    return *p;
#elif SMS_IS_AVX2
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
#else
    typedef int8_t bytes __attribute__((vector_size(SMS_LANES)));
    bytes numbers;
    memcpy(&numbers, p, sizeof numbers);
    return __builtin_convertvector(numbers, vi);
#endif
}

static void sms_widen_rows_q8(const int8_t *rows, const uint16_t *scale, int64_t n, int64_t k, float *out) {
    for (int64_t row = 0; row < n; row++)
        for (int64_t block = 0; block < k / SMS_BLOCK; block++) {
            const vf factor = w_widened(SMS_F16, w_set(scale[row * (k / SMS_BLOCK) + block]), 0);
            const int8_t *from = rows + row * k + block * SMS_BLOCK;
            __builtin_prefetch(from + n * k, 0, 2); /* the next block of values */
            for (int i = 0; i < SMS_BLOCK; i += SMS_LANES)
                v_store(out + (block * SMS_BLOCK + i) / SMS_NR * SMS_NR * n + row * SMS_NR + i % SMS_NR,
                        w_to_float(q_bytes(from + i)) * factor);
        }
}

#endif
