/* The loops along the depth at SVL 512 with SME alone: the rows of both halves (rows.h) come with one load, each vector
 * of columns with another, so that 4 outer products of two by two vectors need 3 loads. For outer products to be more
 * than half of all instructions nothing else may be in the way; compilers were seen to keep the offsets of an unrolled
 * loop in registers, and then on the stack, so this one is spelt out. Each returns how deep it went. */
#ifndef SMESIM_SME_DEPTH_H
#define SMESIM_SME_DEPTH_H

enum { SMS_K_A_TURN = 64 };

/* Two k, so that the loads of one need not wait for the outer products of the other; those of rows are `pairs` vectors
 * from their pointer. */
#define SMS_TWO_K(outer, type, pairs)                                                        \
    "ld2w    {z0.s, z1.s}, %[all]/z, [%[a], #(" pairs "), mul vl]\n\t"                       \
    "ldr     z2, [%[left], #(%c[k] + 2 * \\i), mul vl]\n\t"                                  \
    "ldr     z3, [%[right], #(%c[k] + 2 * \\i), mul vl]\n\t"                                 \
    "ld2w    {z4.s, z5.s}, %[all]/z, [%[a], #(" pairs " + 2), mul vl]\n\t"                   \
    "ldr     z6, [%[left], #(%c[k] + 2 * \\i + 1), mul vl]\n\t"                              \
    "ldr     z7, [%[right], #(%c[k] + 2 * \\i + 1), mul vl]\n\t"                             \
    outer "  za0.s, %[all]/m, %[all]/m, z0." type ", z2." type "\n\t"                        \
    outer "  za1.s, %[all]/m, %[all]/m, z0." type ", z3." type "\n\t"                        \
    outer "  za2.s, %[all]/m, %[all]/m, z1." type ", z2." type "\n\t"                        \
    outer "  za3.s, %[all]/m, %[all]/m, z1." type ", z3." type "\n\t"                        \
    outer "  za0.s, %[all]/m, %[all]/m, z4." type ", z6." type "\n\t"                        \
    outer "  za1.s, %[all]/m, %[all]/m, z4." type ", z7." type "\n\t"                        \
    outer "  za2.s, %[all]/m, %[all]/m, z5." type ", z6." type "\n\t"                        \
    outer "  za3.s, %[all]/m, %[all]/m, z5." type ", z7." type "\n\t"

/* 32 k. Their columns are FIRST_K words behind pointers that stay where they are. A load of two vectors reaches eight k
 * before its pointer and seven behind it, so that the pointer to the rows begins between them, and moves. */
#define SMS_TURN(outer, type)                                                                                   \
    __asm__ volatile(                                                                                           \
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7\n\t" SMS_TWO_K(outer, type, "4 * \\i - 16") ".endr\n\t"                \
        "add     %[a], %[a], #2048\n\t"                                                                         \
        ".irp i, 8, 9, 10, 11, 12, 13, 14, 15\n\t" SMS_TWO_K(outer, type, "4 * \\i - 48") ".endr\n\t"          \
        "add     %[a], %[a], #2048\n\t"                                                                         \
        : [a] "+&r"(a)                                                                                          \
        : [left] "r"(left), [right] "r"(right), [k] "i"(FIRST_K), [all] "Upl"(svptrue_b8())                     \
        : "z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "za", "memory")

/* A whole strip of 32 rows times two panels, from where left is until `end`, which is 64 words further or a multiple of
 * it. */
SMS_INLINE void sms_turns(const enum sms_number number, const float *a, const float *left, const float *right,
                          const float *end) SMS_IN_ZA {
    a += SMS_K_A_TURN / 8 * 2 * SMS_NR;
    do {
        {
            enum { FIRST_K = 0 };
            SMS_TURN_OF(number);
        }
        {
            enum { FIRST_K = SMS_K_A_TURN / 2 };
            SMS_TURN_OF(number);
        }
        left += SMS_K_A_TURN * SMS_NR;
        right += SMS_K_A_TURN * SMS_NR;
    } while (left < end);
}

SMS_INLINE int64_t sms_depth_2x2_512(const enum sms_number number, const struct sms_tile *t,
                                     int64_t column) SMS_IN_ZA {
    const int64_t depth = t->depth & ~(int64_t)(SMS_K_A_TURN - 1);
    if (t->lda != 2 * SMS_NR || depth == 0)
        return 0;
    const float *left = sms_columns_at(1, t, column).part[0], *right = sms_columns_at(1, t, column + SMS_NR).part[0];
    sms_turns(number, t->a, left, right, left + depth * SMS_NR);
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
