/* The instructions of AVX2 and FMA on half of their registers: where wider kernels stand in for a matrix unit, the
 * kernels of the cores. 16 registers hold a tile of 2 x 16 (8 accumulators, as many as two pipes need), the four vectors
 * of a panel and one broadcast. */
#define SMS_ISA fma128
#define SMS_STAND_IN
#define SMS_LANES 4
#define SMS_MR 2
#define SMS_HEIGHTS(X) X(1) X(2)
#define SMS_PANELS 1
#define SMS_KC 512
#define SMS_LHS_BLOCK_BYTES (320 * 1024)
#define SMS_TEST_ONLY 0
#define SMS_PREFETCH_LOCALITY 2
#define SMS_ATTENTION_ROWS 96
#define SMS_ATTENTION_KEYS 256
#include "../vector/table.h"
