/* SME alone: outer products, and loads of single vectors. */
#define SMS_ISA sme
#include "table.h"
