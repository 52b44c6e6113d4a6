/* Words of block-quantised weights, and the products of one block (layout_blocks.h).
 *
 * Where an ISA multiplies signed bytes, weights of 4 bits are taken as the upper halves of bytes, 16 times what they
 * are: that takes no more than a shift or a mask, and the sum of a block is divided by 16 once. Where it multiplies
 * unsigned bytes by signed ones, weights are made unsigned by an offset, 8 or 128. What that adds, the offset times
 * the sum of the block's activations, is called the excess: one number for all columns. Weights of Q4_1 are unsigned
 * and are multiplied as they are everywhere; there the sum of the activations itself is wanted, and counts as excess.
 *
 * Within a block sums may be of any form that fits into a vector, so with AVX2 those of 4 bits are of int16: 8 words
 * of at most 2 * 15 * 127 a lane. Sums begin with minus their excess, which costs nothing. */
#ifndef SMESIM_BLOCKS_WORDS_H
#define SMESIM_BLOCKS_WORDS_H

#include "../lowp/words.h"
#include "quant.h"

enum { SMS_PANEL_VECTORS = SMS_NR / SMS_LANES };

#define SMS_NIBBLES ((int32_t)0x0f0f0f0f) /* the lower one of each byte */
#if SMS_LANES == 8 && defined(__AVX2__)
#define SMS_IS_AVX2 1
#else
#define SMS_IS_AVX2 0
#endif

/* What is added to weights to make them unsigned, in each byte of a word; 0 where signed ones are multiplied. */
SMS_INLINE int32_t q_offset(const enum sms_quant quant) {
#if SMS_IS_AVX2
    return quant == SMS_Q4 ? 0x08080808 : 0;
#else
    return !SMS_S8_OFFSET || quant == SMS_Q4_1 ? 0 : quant == SMS_Q4 ? 0x08080808 : SMS_OFFSET_BYTES;
#endif
}

/* What a block's activations are multiplied with to give the excess; 0 where nobody asks for that. */
SMS_INLINE int32_t q_excess_weights(const enum sms_quant quant) {
    return quant == SMS_Q4_1 ? 0x01010101 : q_offset(quant);
}

/* Word 0 .. 7 of a block of a panel that begins at b, for the columns of its vector j. */
SMS_INLINE vi q_weights(const enum sms_quant quant, const sms_word *b, const int word, const int j) {
    if (quant == SMS_Q8)
        return w_load(b + word * SMS_NR + j * SMS_LANES) ^ q_offset(quant);
    const vi nibbles = w_load(b + word / 2 * SMS_NR + j * SMS_LANES);
    if (quant == SMS_Q4_1)
        return (word % 2 ? (vi)((vu)nibbles >> 4) : nibbles) & SMS_NIBBLES;
    if (q_offset(quant)) {
        const vi offset = nibbles ^ (int32_t)0x88888888; /* 8 in either nibble */
        return (word % 2 ? (vi)((vu)offset >> 4) : offset) & SMS_NIBBLES;
    }
    return (word % 2 ? nibbles : (vi)((vu)nibbles << 4)) & ~SMS_NIBBLES;
}

/* Whether gcc may put off additions; it would put off all, and keep the products in memory until then. */
#if SMS_IS_AVX2
#define SMS_ADD_NOW(sum) __asm__("" : "+x"(sum))
#else
#define SMS_ADD_NOW(sum) (void)0
#endif

/* Into how many parts words are split before they are multiplied; the lhs of a product of matrices is split once for
 * many columns. With AVX2 pairs of int16 are multiplied where bytes would not fit: VPMADDUBSW takes one factor unsigned,
 * and sums of weights and activations that are both of 8 bits do not fit into int16. */
SMS_INLINE int q_parts(const enum sms_quant quant) { return SMS_IS_AVX2 && quant != SMS_Q8 ? 1 : w_parts(SMS_S8); }

SMS_INLINE vi q_part(const enum sms_quant quant, vi words, const int part) {
    return q_parts(quant) == 1 ? words : w_part(SMS_S8, words, part);
}

/* sum + the products of a part of a word of weights and one of activations, in a form that only q_total knows. */
SMS_INLINE vi q_dot(const enum sms_quant quant, vi sum, vi weights, vi x) {
#if SMS_IS_AVX2
    if (quant != SMS_Q8)
        sum = (vi)_mm256_add_epi16((__m256i)sum, _mm256_maddubs_epi16((__m256i)weights, (__m256i)x));
    else
        sum = w_dot_s8(sum, weights, x);
    SMS_ADD_NOW(sum);
    return sum;
#else
    (void)quant;
    return SMS_S8_OFFSET ? w_dot_s8(sum, x, weights) : w_dot_s8(sum, weights, x);
#endif
}

/* The same of whole words. */
SMS_INLINE vi q_dot_words(const enum sms_quant quant, vi sum, vi weights, vi x) {
#if SMS_IS_AVX2
    if (quant == SMS_Q8) { /* the sign goes to the other factor; two products are 2 * 128 * 127 at most */
        const __m256i size = _mm256_abs_epi8((__m256i)weights), turned = _mm256_sign_epi8((__m256i)x, (__m256i)weights);
        sum = w_add(sum, (vi)_mm256_madd_epi16(_mm256_maddubs_epi16(size, turned), _mm256_set1_epi16(1)));
        SMS_ADD_NOW(sum);
        return sum;
    }
#endif
    SMS_UNROLL(2)
    for (int part = 0; part < q_parts(quant); part++)
        sum = q_dot(quant, sum, q_part(quant, weights, part), q_part(quant, x, part));
    return sum;
}

/* Minus a sum, in the same form: what sums begin with that are to be without their excess. Sums of int16 may go beyond
 * their range on the way; they come back. */
SMS_INLINE vi q_negated(const enum sms_quant quant, vi sum) {
#if SMS_IS_AVX2
    if (quant != SMS_Q8)
        return (vi)_mm256_sub_epi16(_mm256_setzero_si256(), (__m256i)sum);
#endif
    (void)quant;
    return w_subtract(w_set(0), sum);
}

/* The sum of a block that q_dot has added up, as int32. */
SMS_INLINE vi q_total(const enum sms_quant quant, vi sum) {
    if (quant == SMS_Q8)
        return sum;
#if SMS_IS_AVX2
    return (vi)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1));
#else
    return q_offset(quant) || quant == SMS_Q4_1 ? sum : sum >> 4;
#endif
}

#endif
