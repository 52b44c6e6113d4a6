/* What AVX2's table does, on half of the registers: for cores beside wider kernels that stand in for a matrix unit. 16
 * registers hold a tile of 2 x 16 (8 accumulators), the four vectors of parts of a panel and one broadcast. */
#define SMS_ISA fma128
#define SMS_STAND_IN
#define SMS_LANES 4
#define SMS_BF16_DOT 0
#define SMS_S8_DOT 0
#define SMS_S8_OFFSET 0
#define SMS_BLOCKS 0
#define SMS_MR 2
#define SMS_HEIGHTS(X) X(1) X(2)
#define SMS_PANELS 1
#define SMS_GROUP 8
#define SMS_KC_WORDS 256
#define SMS_LHS_BLOCK_BYTES (320 * 1024)
#define SMS_TEST_ONLY 0
#define SMS_PREFETCH_LOCALITY 2
#include "../table.h"
