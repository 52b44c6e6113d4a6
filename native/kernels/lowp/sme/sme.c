/* SME alone: outer products of words, BFMOPA, FMOPA and SMOPA. */
#define SMS_ISA sme
#include "../matrix_table.h"
