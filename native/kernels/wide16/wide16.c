/* The source and the blocking of avx512.c, with its 16 lanes made of two registers, so that the wide code's
 * numbers can be checked on a machine without AVX-512. Slow: the tile does not fit the registers. */
#define SMS_ISA wide16
#define SMS_LANES 16
#define SMS_MR 12
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define SMS_PANELS 2
#define SMS_KC 384
#define SMS_LHS_BLOCK_BYTES (512 * 1024)
#define SMS_TEST_ONLY 1
#define SMS_PREFETCH_LOCALITY 2
#define SMS_ATTENTION_ROWS 96
#define SMS_ATTENTION_KEYS 256
#include "../vector/rolled.h"
#include "../vector/table.h"
