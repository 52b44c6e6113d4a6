/* What the tables for NEON have in common. bf16 and f16 are widened to f32 where nothing is said of them; products
 * of int8 take both sides signed. The tile and blocks: 32 registers hold 6 x 16 (24 accumulators), the four vectors
 * of a panel, and elements of the lhs. */
#define SMS_LANES 4
#define SMS_BF16_DOT 0
#define SMS_S8_DOT 1
#define SMS_S8_OFFSET 0
#define SMS_MR 6
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define SMS_PANELS 1
#define SMS_GROUP 8
#define SMS_KC_WORDS 256
#define SMS_LHS_BLOCK_BYTES (320 * 1024)
#define SMS_TEST_ONLY 0
#define SMS_PREFETCH_LOCALITY 2
#include "../vector/vec.h"

#include <arm_neon.h>
