/* AVX2 with FMA and F16C. bf16 and f16 are widened to f32 and multiplied as such; the pipes that shift and shuffle
 * have nothing else to do. int8 are widened to int16 for VPMADDWD, which is exact where VPMADDUBSW may saturate. 16
 * registers hold a tile of 6 x 16 (12 accumulators), two vectors of parts of a panel, one broadcast and one product. */
#define SMS_ISA avx2
#define SMS_LANES 8
#define SMS_BF16_DOT 0
#define SMS_S8_DOT 0
#define SMS_S8_OFFSET 0
#define SMS_BLOCKS 0
#define SMS_MR 6
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define SMS_PANELS 1
#define SMS_GROUP 8
#define SMS_KC_WORDS 256
#define SMS_LHS_BLOCK_BYTES (320 * 1024)
#define SMS_TEST_ONLY 0
#define SMS_PREFETCH_LOCALITY 2
#include "../table.h"
