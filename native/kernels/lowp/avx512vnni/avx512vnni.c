/* AVX-512 with VNNI: VPDPBUSD for int8; bf16 and f16 are widened to f32 as with AVX2, at twice the
 * width. */
#define SMS_ISA avx512vnni
#define SMS_BF16_DOT 0
#define SMS_S8_DOT 1
#define SMS_TEST_ONLY 0
#include "../wide_tile.h"
#include "../avx512_dot.h"
#include "../table.h"
