/* Loops left as they are written: for tables whose tile the registers do not hold anyway. Unrolled they are no faster,
 * and their files take up to twenty times as long to compile. */
#ifndef SMESIM_ROLLED_H
#define SMESIM_ROLLED_H

#include "inline.h"

#undef SMS_UNROLL
#define SMS_UNROLL(count) SMS_PRAGMA(GCC unroll 1)

#endif
