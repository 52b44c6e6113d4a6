/* What a matrix unit multiplies: words of 32 bits, each the group of neighbouring k that layout_lowp.h describes, two
 * bf16 or f16 or four int8. An f32 is a group of one. Words lie in the same strips and panels whatever they hold, and
 * their products are summed in 32 bits of ZA, so that loops are written once; `number` is a constant wherever it is
 * passed and chooses the instructions that multiply. Vectors of words have the type of f32 until then. */
#ifndef SMESIM_SME_WORDS_H
#define SMESIM_SME_WORDS_H

#include "smesim/layout_lowp.h"
#include "za.h"

enum sms_number { SMS_F32, SMS_BF16, SMS_F16, SMS_S8 };

/* tile += rows * columns^T. */
#define SMS_OUTER(number, tile, rows, columns)                                                                     \
    do {                                                                                                           \
        const svbool_t all = svptrue_b8();                                                                         \
        if ((number) == SMS_F32)                                                                                   \
            svmopa_za32_f32_m(tile, all, all, rows, columns);                                                      \
        else if ((number) == SMS_BF16)                                                                             \
            svmopa_za32_bf16_m(tile, all, all, svreinterpret_bf16_f32(rows), svreinterpret_bf16_f32(columns));     \
        else if ((number) == SMS_F16)                                                                              \
            svmopa_za32_f16_m(tile, all, all, svreinterpret_f16_f32(rows), svreinterpret_f16_f32(columns));        \
        else                                                                                                       \
            svmopa_za32_s8_m(tile, all, all, svreinterpret_s8_f32(rows), svreinterpret_s8_f32(columns));           \
    } while (0)

/* What sums of int8 stand for, `scale` being column_scale * row_scale: the operations of w_scaled in ../lowp/words.h,
 * which round alike. */
SMS_INLINE svfloat32_t sms_scaled(svfloat32_t sum, svfloat32_t scale, svfloat32_t bias) __arm_streaming {
    return svmad_f32_x(svptrue_b32(), sum, scale, bias);
}

#endif
