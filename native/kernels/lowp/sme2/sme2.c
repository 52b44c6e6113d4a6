/* SME2: loads of four vectors at a time, and products with one vector through ZA. */
#define SMS_ISA sme2
#include "../matrix_table.h"
