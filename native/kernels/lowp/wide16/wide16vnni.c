/* The source and blocking of avx512vnni.c, its word product acted out. */
#define SMS_ISA wide16vnni
#define SMS_BF16_DOT 0
#define SMS_S8_DOT 1
#define SMS_TEST_ONLY 1
#include "../wide_tile.h"
#include "../acted_dot.h"
#include "../table.h"
