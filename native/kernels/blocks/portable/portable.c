/* Plain C11, one lane: the reference for every other table, and what runs where there is no other. */
#define SMS_ISA portable
#define SMS_LANES 1
#define SMS_S8_DOT 0
#define SMS_S8_OFFSET 0
#define SMS_MR 4
#define SMS_HEIGHTS(X) X(1) X(2) X(3) X(4)
#define SMS_PANELS 1
#define SMS_TEST_ONLY 0
#include "../../vector/rolled.h"
#include "../table.h"
