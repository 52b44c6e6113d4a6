/* The word products of AVX-512. */
#include "../vector/vec.h"

#if defined(__AVX512BF16__)
/* Rounds after each of the two multiply-adds; takes denormals as zero and gives none. */
SMS_INLINE vf isa_dot_bf16(vf sum, vi b, vi a) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)b, (__m512bh)a);
}
#endif

SMS_INLINE vi isa_dot_s8(vi sum, vi b, vi a) {
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}
