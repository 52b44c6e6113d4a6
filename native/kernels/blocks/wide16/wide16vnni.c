/* The source and blocking of avx512vnni.c, its word product acted out. */
#define SMS_ISA wide16vnni
#define SMS_TEST_ONLY 1
#include "../wide_tile.h"
#include "../../lowp/acted_dot.h"
#include "../table.h"
