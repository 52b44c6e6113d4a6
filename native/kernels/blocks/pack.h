/* Packing of blocks, from f32 and from GGUF's. A panel's block is made one column after another: a scale and eight
 * words, of which the lower nibbles count where there are 4 bits. Then the columns are interleaved. */
#ifndef SMESIM_BLOCKS_PACK_H
#define SMESIM_BLOCKS_PACK_H

#include <float.h>

#include "../lowp/convert.h"
#include "words.h"

enum { SMS_MOST_Q4 = 15 };

typedef sms_word sms_block_words[SMS_BLOCK_WORDS];

SMS_INLINE void sms_store_block(const enum sms_quant quant, sms_block_words columns[SMS_NR], sms_word *out) {
    if (quant == SMS_Q8) {
        for (int word = 0; word < SMS_BLOCK_WORDS; word++)
            for (int column = 0; column < SMS_NR; column++)
                out[word * SMS_NR + column] = columns[column][word];
        return;
    }
    for (int row = 0; row < SMS_BLOCK_WORDS / 2; row++)
        for (int column = 0; column < SMS_NR; column++) {
            const uint32_t even = (uint32_t)columns[column][2 * row], odd = (uint32_t)columns[column][2 * row + 1];
            out[row * SMS_NR + column] = (sms_word)((even & SMS_NIBBLES) | (odd & SMS_NIBBLES) << 4);
        }
}

/* 0 where it would be infinite. */
SMS_INLINE float sms_reciprocal(float d) {
    const float reciprocal = 1.0f / d;
    return fabsf(reciprocal) <= FLT_MAX ? reciprocal : 0.0f;
}

/* `of_scale`, or the most that there is of 4 bits. */
SMS_INLINE int8_t sms_q4(float of_scale) {
    const int nearest = (int)of_scale;
    return (int8_t)(nearest < SMS_MOST_Q4 ? nearest : SMS_MOST_Q4);
}

/* A block of Q4_1: the least number is added to all, so it may have a scale although all are equal. */
SMS_INLINE void sms_quantize_q4_1(const float *block, int8_t *numbers, uint16_t *scales) {
    float least = block[0], most = block[0];
    for (int i = 1; i < SMS_BLOCK; i++) {
        least = block[i] < least ? block[i] : least;
        most = block[i] > most ? block[i] : most;
    }
    const float d = (most - least) / (float)SMS_MOST_Q4, reciprocal = sms_reciprocal(d);
    for (int i = 0; i < SMS_BLOCK && reciprocal > 0.0f; i++) /* else some might be beyond all floats */
        numbers[i] = sms_q4(fmaf(block[i] - least, reciprocal, 0.5f));
    scales[0] = sms_f16(d + 0.0f); /* a zero has no sign */
    scales[1] = sms_f16(least + 0.0f);
}

/* One block of a row of w, whose last `SMS_BLOCK - count` numbers are not there. */
SMS_INLINE void sms_quantize_block(const enum sms_quant quant, const float *w, int64_t count, sms_word *words,
                                   uint16_t *scales) {
    enum { F16_NAN = 0x7e00, Q4_ZERO = 8 };
    float block[SMS_BLOCK] = {0}, largest = 0.0f;
    int8_t numbers[SMS_BLOCK] = {0};
    memcpy(block, w, (size_t)count * sizeof *w);
    memcpy(words, numbers, sizeof numbers);
    scales[0] = F16_NAN;
    scales[1] = 0;
    for (int i = 0; i < SMS_BLOCK; i++) {
        if (!(fabsf(block[i]) <= FLT_MAX))
            return;
        largest = fabsf(block[i]) > fabsf(largest) ? block[i] : largest;
    }
    if (quant == SMS_Q4_1) {
        sms_quantize_q4_1(block, numbers, scales);
        memcpy(words, numbers, sizeof numbers);
        return;
    }
    const float d = quant == SMS_Q4 ? largest / -8.0f : fabsf(largest) / 127.0f, reciprocal = sms_reciprocal(d);
    if (quant == SMS_Q4) {
        for (int i = 0; i < SMS_BLOCK; i++) {
            numbers[i] = (int8_t)(sms_q4(fmaf(block[i], reciprocal, Q4_ZERO + 0.5f)) - Q4_ZERO);
        }
    } else {
        for (int i = 0; i < SMS_BLOCK; i++)
            block[i] *= reciprocal;
        __asm__ volatile("" : : "r"(block) : "memory"); /* products are rounded, not fused with what comes */
        for (int i = 0; i < SMS_BLOCK; i++) {
            const int whole = (int)block[i];
            const float rest = block[i] - (float)whole;
            numbers[i] = (int8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
        }
    }
    memcpy(words, numbers, sizeof numbers);
    scales[0] = sms_f16(d);
}

/* The scales of a block of a panel: of all columns, and then what is added in all of them. */
SMS_INLINE void sms_store_scales(const enum sms_quant quant, uint16_t (*scales)[2], uint16_t *out) {
    for (int64_t i = 0; i < q_panel_scales(quant); i++)
        out[i] = scales[i % SMS_NR][i / SMS_NR];
}

SMS_INLINE void sms_pack_blocks(const enum sms_quant quant, const float *w, int64_t ldw, int64_t n, int64_t k,
                                int64_t panel0, int64_t panel1, sms_word *out, uint16_t *scale) {
    const int64_t blocks = sms_depth_blocks(k);
    for (int64_t at = panel0 * blocks; at < panel1 * blocks; at++) {
        const int64_t row = at / blocks * SMS_NR, k0 = at % blocks * SMS_BLOCK;
        const int64_t rows = n - row < SMS_NR ? n - row : SMS_NR, count = k - k0 < SMS_BLOCK ? k - k0 : SMS_BLOCK;
        sms_block_words columns[SMS_NR] = {{0}};
        uint16_t scales[SMS_NR][2] = {{0}};
        for (int64_t column = 0; column < rows; column++)
            sms_quantize_block(quant, w + (row + column) * ldw + k0, count, columns[column], scales[column]);
        sms_store_scales(quant, scales, scale + at * q_panel_scales(quant));
        sms_store_block(quant, columns, out + at * q_panel_words(quant));
    }
}

/* GGUF's numbers of one block as words. */
SMS_INLINE void sms_gguf_words(const enum sms_quant quant, const uint8_t *numbers, sms_word *words) {
    enum { HALF = SMS_BLOCK_WORDS / 2 };
    memcpy(words, numbers, SMS_BLOCK / (quant == SMS_Q8 ? 1 : 2));
    if (quant == SMS_Q8)
        return;
    const sms_word offset = quant == SMS_Q4 ? 0x08080808 : 0;
    for (int word = 0; word < HALF; word++) {
        words[HALF + word] = (sms_word)((uint32_t)words[word] >> 4) ^ offset;
        words[word] ^= offset;
    }
}

SMS_INLINE void sms_repack_blocks(const enum sms_quant quant, const uint8_t *gguf, int64_t row_bytes, int64_t n,
                                  int64_t k, int64_t panel0, int64_t panel1, sms_word *out, uint16_t *scale) {
    const int64_t scale_bytes = q_panel_scales(quant) / SMS_NR * (int64_t)sizeof *scale;
    const int64_t blocks = k / SMS_BLOCK, block_bytes = scale_bytes + SMS_BLOCK / (quant == SMS_Q8 ? 1 : 2);
    for (int64_t at = panel0 * blocks; at < panel1 * blocks; at++) {
        const int64_t row = at / blocks * SMS_NR, rows = n - row < SMS_NR ? n - row : SMS_NR;
        sms_block_words columns[SMS_NR] = {{0}};
        uint16_t scales[SMS_NR][2] = {{0}};
        for (int64_t column = 0; column < rows; column++) {
            const uint8_t *block = gguf + (row + column) * row_bytes + at % blocks * block_bytes;
            memcpy(scales[column], block, (size_t)scale_bytes);
            sms_gguf_words(quant, block + scale_bytes, columns[column]);
        }
        sms_store_scales(quant, scales, scale + at * q_panel_scales(quant));
        sms_store_block(quant, columns, out + at * q_panel_words(quant));
    }
}

static void sms_quantize_lhs_q8(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                                int64_t strip1, int8_t *out, float *scale) {
    const int64_t strips = sms_lhs_strips(m, mr), blocks = sms_depth_blocks(k);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row = sms_lhs_strip_row(strip, m, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, m, strips) - row;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t k0 = block * SMS_BLOCK, count = k - k0 < SMS_BLOCK ? k - k0 : SMS_BLOCK;
            sms_word *words = (sms_word *)out + (row * blocks + block * height) * SMS_BLOCK_WORDS;
            if (count < SMS_BLOCK)
                memset(words, 0, (size_t)(height * SMS_BLOCK));
            sms_pack_words(SMS_S8, x + row * ldx + k0, ldx, height, count, words, height,
                           scale + row * blocks + block * height);
        }
    }
}

#define SMS_PACK_BLOCKS(name, quant, number)                                                                          \
    static void sms_pack_rhs_##name(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1, \
                                    number *out, uint16_t *scale) {                                                  \
        sms_pack_blocks(quant, w, ldw, n, k, panel0, panel1, (sms_word *)out, scale);                                \
    }                                                                                                                \
    static void sms_repack_rhs_##name(const uint8_t *rows, int64_t row_bytes, int64_t n, int64_t k, int64_t panel0,  \
                                      int64_t panel1, number *out, uint16_t *scale) {                                \
        sms_repack_blocks(quant, rows, row_bytes, n, k, panel0, panel1, (sms_word *)out, scale);                     \
    }
SMS_PACK_BLOCKS(q4, SMS_Q4, uint8_t)
SMS_PACK_BLOCKS(q8, SMS_Q8, int8_t)
SMS_PACK_BLOCKS(q4_1, SMS_Q4_1, uint8_t)

#endif
