/* AVX-512 F, VL, BW, DQ: 32 registers hold a tile of 12 x 32 (24 accumulators), one vector of each of two
 * panels and one broadcast. With 14 loads for 24 multiply-adds the load ports keep up on machines with one
 * 512-bit load a cycle. */
#define SMS_ISA avx512
#define SMS_LANES 16
#define SMS_MR 12
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define SMS_PANELS 2
#define SMS_KC 384
#define SMS_LHS_BLOCK_BYTES (512 * 1024)
#define SMS_TEST_ONLY 0
#define SMS_PREFETCH_LOCALITY 2
#define SMS_ATTENTION_ROWS 96
#define SMS_ATTENTION_KEYS 256
#include "../vector/table.h"
