/* NEON of Armv8.0, which every aarch64 CPU has. Of int8, two products fit into an int16, since none is -128: pairs
 * are summed there, and pairs of those in the lane of their column. */
#define SMS_ISA neon
#define SMS_BLOCKS 0
#include "../neon_tile.h"

SMS_INLINE vi isa_dot_s8(vi sum, vi b, vi a) {
    const int8x16_t numbers = (int8x16_t)b, others = (int8x16_t)a;
    const int16x8_t low = vmull_s8(vget_low_s8(numbers), vget_low_s8(others));
    const int16x8_t high = vmull_high_s8(numbers, others);
    return (vi)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, high));
}

#include "../table.h"
