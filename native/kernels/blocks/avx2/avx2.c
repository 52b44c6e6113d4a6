/* AVX2 with FMA: VPMADDUBSW. 16 registers hold a tile of 6 x 16 (12 sums), two vectors of weights, one broadcast and
 * one product. */
#define SMS_ISA avx2
#define SMS_LANES 8
#define SMS_S8_DOT 0
#define SMS_S8_OFFSET 0
#define SMS_MR 6
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define SMS_PANELS 1
#define SMS_TEST_ONLY 0
#include "../table.h"
