/* AVX-512 with VNNI: VPDPBUSD. */
#define SMS_ISA avx512vnni
#define SMS_TEST_ONLY 0
#include "../wide_tile.h"
#include "../../lowp/avx512_dot.h"
#include "../table.h"
