/* AVX-512 with BF16 and VNNI: VDPBF16PS for bf16, VPDPBUSD for int8. f16 are widened to f32. */
#define SMS_ISA avx512bf16
#define SMS_BF16_DOT 1
#define SMS_S8_DOT 1
#define SMS_TEST_ONLY 0
#include "../wide_tile.h"
#include "../avx512_dot.h"
#include "../table.h"
