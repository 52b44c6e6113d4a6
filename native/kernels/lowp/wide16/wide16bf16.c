/* The source and blocking of avx512bf16.c, its word products acted out. */
#define SMS_ISA wide16bf16
#define SMS_BF16_DOT 1
#define SMS_S8_DOT 1
#define SMS_TEST_ONLY 1
#include "../wide_tile.h"
#include "../acted_dot.h"
#include "../table.h"
