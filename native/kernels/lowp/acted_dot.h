/* The word products of AVX-512, acted out in plain vector C, so that what is built around them can be checked on a
 * machine without them. Slow: a call for each, of many instructions. */
#include "../vector/rolled.h"
#include "../vector/vec.h"

static __attribute__((noinline, unused)) vf isa_dot_bf16(vf sum, vi b, vi a) {
    const uint32_t UPPER = 0xffff0000u;
    sum += v_of_bits((vi)((vu)b & UPPER)) * v_of_bits((vi)((vu)a & UPPER));
    return sum + v_of_bits((vi)((vu)b << 16)) * v_of_bits((vi)((vu)a << 16));
}

static __attribute__((noinline, unused)) vi isa_dot_s8(vi sum, vi b, vi a) {
    for (int byte = 0; byte < 4; byte++) {
        const vi number = (vi)((vu)b << (24 - 8 * byte)) >> 24; /* signed */
        const vu offset = (vu)a >> (8 * byte) & 0xffu;          /* unsigned */
        sum = (vi)((vu)sum + (vu)number * offset);
    }
    return sum;
}
