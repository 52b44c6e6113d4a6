/* What AVX2's table does, on half of the registers: for cores beside wider kernels that stand in for a matrix unit. */
#define SMS_ISA fma128
#define SMS_LANES 4
#define SMS_S8_DOT 0
#define SMS_S8_OFFSET 0
#define SMS_MR 2
#define SMS_HEIGHTS(X) X(1) X(2)
#define SMS_PANELS 1
#define SMS_TEST_ONLY 0
#define SMS_STAND_IN
#include "../table.h"
