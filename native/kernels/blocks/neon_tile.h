/* The tile of NEON's tables: 32 registers hold 4 x 16 (16 sums), four vectors of weights and their other nibbles. */
#define SMS_LANES 4
#define SMS_S8_DOT 1
#define SMS_S8_OFFSET 0
#define SMS_MR 4
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4)
#define SMS_PANELS 1
#define SMS_TEST_ONLY 0
#include "../vector/vec.h"

#include <arm_neon.h>
