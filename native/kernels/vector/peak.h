/* The loop that finds what the multiply-add pipes give: the inner loop of a tile, its operands made before and read
 * from the nearest cache. They are read anew each time because the products of constants are constants, which a
 * compiler would compute once; and a chain that a compiler could follow, it would shorten.
 *
 * SMS_PEAK defines name(one, iterations): `rows` x `vectors` chains of sum = dot(sum, column(b, j), row(a, r)), whose
 * operands are all made of the element `one`; returns the sum of all chains. */
#ifndef SMESIM_VECTOR_PEAK_H
#define SMESIM_VECTOR_PEAK_H

#include "vec.h"

#define SMS_PEAK(name, vector, element, rows, vectors, column, row, dot, add)                        \
    static vector name(element one, int64_t iterations) {                                            \
        enum { ELEMENTS = sizeof(vector) / sizeof(element) };                                        \
        element rhs[(vectors)*ELEMENTS], lhs[(rows)*ELEMENTS];                                       \
        for (int i = 0; i < (vectors)*ELEMENTS; i++)                                                 \
            rhs[i] = one;                                                                            \
        for (int i = 0; i < (rows)*ELEMENTS; i++)                                                    \
            lhs[i] = one;                                                                            \
        vector acc[rows][vectors];                                                                   \
        SMS_UNROLL(16)                                                                               \
        for (int r = 0; r < (rows); r++) {                                                           \
            SMS_UNROLL(16)                                                                           \
            for (int j = 0; j < (vectors); j++)                                                      \
                acc[r][j] = (vector){0};                                                             \
        }                                                                                            \
        const element *a = lhs, *b = rhs;                                                            \
        for (int64_t i = 0; i < iterations; i++) {                                                   \
            __asm__ volatile("" : "+r"(a), "+r"(b));                                                 \
            SMS_UNROLL(16)                                                                           \
            for (int r = 0; r < (rows); r++) {                                                       \
                SMS_UNROLL(16)                                                                       \
                for (int j = 0; j < (vectors); j++)                                                  \
                    acc[r][j] = dot(acc[r][j], column(b, j), row(a, r));                             \
            }                                                                                        \
        }                                                                                            \
        vector done[(rows) * (vectors)];                                                             \
        SMS_UNROLL(16)                                                                               \
        for (int r = 0; r < (rows); r++) {                                                           \
            SMS_UNROLL(16)                                                                           \
            for (int j = 0; j < (vectors); j++)                                                      \
                done[r * (vectors) + j] = acc[r][j];                                                 \
        }                                                                                            \
        __asm__ volatile("" : : "r"(done) : "memory");                                               \
        vector total = {0};                                                                          \
        for (int i = 0; i < (rows) * (vectors); i++)                                                 \
            total = add(total, done[i]);                                                             \
        return total;                                                                                \
    }

#endif
