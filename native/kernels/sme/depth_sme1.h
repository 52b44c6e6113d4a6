/* The loops along the depth at SVL 512 with SME alone: each load brings one vector, so that 4 outer products of two by
 * two vectors need 4 loads. For outer products to be almost half of all instructions nothing else may be in the way;
 * compilers were seen to keep the offsets of an unrolled loop in registers, and then on the stack, so this one is
 * spelt out. Each returns how deep it went. */
#ifndef SMESIM_SME_DEPTH_H
#define SMESIM_SME_DEPTH_H

enum { SMS_K_A_TURN = 32 };

/* Two k, so that the loads of one need not wait for the outer products of the other; `pairs` is from where the pointer
 * to the rows is. */
#define SMS_TWO_K(outer, type, pairs)                                                        \
    "ld2w    {z0.s, z1.s}, %[all]/z, [%[a], #(" pairs "), mul vl]\n\t"                       \
    "ldr     z2, [%[left], #(2 * \\i), mul vl]\n\t"                                          \
    "ldr     z3, [%[right], #(2 * \\i), mul vl]\n\t"                                         \
    "ld2w    {z4.s, z5.s}, %[all]/z, [%[a], #(" pairs " + 2), mul vl]\n\t"                   \
    "ldr     z6, [%[left], #(2 * \\i + 1), mul vl]\n\t"                                      \
    "ldr     z7, [%[right], #(2 * \\i + 1), mul vl]\n\t"                                     \
    outer "  za0.s, %[all]/m, %[all]/m, z0." type ", z2." type "\n\t"                        \
    outer "  za1.s, %[all]/m, %[all]/m, z0." type ", z3." type "\n\t"                        \
    outer "  za2.s, %[all]/m, %[all]/m, z1." type ", z2." type "\n\t"                        \
    outer "  za3.s, %[all]/m, %[all]/m, z1." type ", z3." type "\n\t"                        \
    outer "  za0.s, %[all]/m, %[all]/m, z4." type ", z6." type "\n\t"                        \
    outer "  za1.s, %[all]/m, %[all]/m, z4." type ", z7." type "\n\t"                        \
    outer "  za2.s, %[all]/m, %[all]/m, z5." type ", z6." type "\n\t"                        \
    outer "  za3.s, %[all]/m, %[all]/m, z5." type ", z7." type "\n\t"

/* A load of two vectors reaches eight such pairs before its pointer and seven behind it. */
#define SMS_TURN(outer, type)                                                                                      \
    __asm__ volatile(".irp i, 0, 1, 2, 3, 4, 5, 6, 7\n\t" SMS_TWO_K(outer, type, "4 * \\i - 16") ".endr\n\t"      \
                     "add     %[a], %[a], #2048\n\t"                                                               \
                     ".irp i, 8, 9, 10, 11, 12, 13, 14, 15\n\t" SMS_TWO_K(outer, type, "4 * \\i - 48") ".endr\n\t" \
                     "add     %[a], %[a], #2048\n\t"                                                               \
                     : [a] "+r"(a)                                                                                 \
                     : [left] "r"(left), [right] "r"(right), [all] "Upl"(svptrue_b8())                             \
                     : "z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "za", "memory")

SMS_INLINE int64_t sms_depth_2x2_512(const enum sms_number number, const struct sms_tile *t,
                                     int64_t column) SMS_IN_ZA {
    if (t->lda != 2 * SMS_NR)
        return 0;
    const float *left = sms_columns_at(1, t, column).part[0], *right = sms_columns_at(1, t, column + SMS_NR).part[0];
    const int64_t depth = t->depth & ~(int64_t)(SMS_K_A_TURN - 1);
    const float *a = t->a + 16 * SMS_NR;
    for (const float *end = left + depth * SMS_NR; left < end; left += SMS_K_A_TURN * SMS_NR) {
        SMS_TURN_OF(number);
        right += SMS_K_A_TURN * SMS_NR;
    }
    return depth;
}

/* One vector of rows by four of columns needs 5 loads: there is nothing to gain over the loop for any length. */
SMS_INLINE int64_t sms_depth_1x4_512(const enum sms_number number, const struct sms_tile *t,
                                     int64_t column) SMS_IN_ZA {
    (void)number;
    (void)t;
    (void)column;
    return 0;
}

#endif
