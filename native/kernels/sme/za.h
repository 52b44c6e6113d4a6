/* ZA, the accumulators of the matrix unit, as the kernels in this folder use it: four square tiles of f32, each
 * `svcntw()` rows by as many columns, and vectors as long as a row. Nothing here knows how long that is.
 *
 * A leaf that the world calls is SMS_SME_LEAF: it enters streaming mode and takes ZA over when it begins, and
 * gives both back when it returns. What it calls is SMS_IN_ZA, and inlined but for a loop that needs all registers:
 * in streaming mode nothing else is called, so no state has to be saved on the way and no instruction is met that
 * streaming mode lacks. */
#ifndef SMESIM_ZA_H
#define SMESIM_ZA_H

#include <arm_sme.h>
#include <stdint.h>

#include "../vector/inline.h"
#include "smesim/layout.h"

#define SMS_SME_LEAF __arm_new("za") __arm_locally_streaming static
#define SMS_IN_ZA __arm_streaming __arm_inout("za")

SMS_INLINE int64_t sms_smaller(int64_t a, int64_t b) SMS_ANY_MODE { return a < b ? a : b; }

/* The lanes of a vector that are elements first .. end of something. */
SMS_INLINE svbool_t sms_lanes_until(int64_t first, int64_t end) __arm_streaming {
    return svwhilelt_b32_s64(first, end);
}

/* Keeps a pointer that a loop moves in its one register: compilers otherwise turn the addresses of an unrolled loop
 * into as many registers, and then into additions and spills. */
#define SMS_ONE_REGISTER(pointer) __asm__("" : "+r"(pointer))

/* The intrinsics take a tile's number as a constant, so loops over slices of a given tile are macros. Four slices
 * a turn: their numbers are then part of the instruction. */
#define SMS_EACH_SLICE(slice, count, statement)                  \
    do {                                                         \
        const uint32_t slices = (uint32_t)(count);               \
        uint32_t slice = 0;                                      \
        for (const uint32_t whole = slices & ~3u; slice < whole;) { \
            statement;                                           \
            slice++;                                             \
            statement;                                           \
            slice++;                                             \
            statement;                                           \
            slice++;                                             \
            statement;                                           \
            slice++;                                             \
        }                                                        \
        for (; slice < slices; slice++) {                        \
            statement;                                           \
        }                                                        \
    } while (0)

#endif
