/* NEON, which every aarch64 CPU has: 32 registers hold a tile of 6 x 16 (24 accumulators), the four vectors of a
 * panel, and elements of the lhs. */
#define SMS_ISA neon
#define SMS_LANES 4
#define SMS_MR 6
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define SMS_PANELS 1
#define SMS_KC 512
#define SMS_LHS_BLOCK_BYTES (320 * 1024)
#define SMS_TEST_ONLY 0
#define SMS_PREFETCH_LOCALITY 2
#define SMS_ATTENTION_ROWS 96
#define SMS_ATTENTION_KEYS 256
#include "../vector/table.h"
