/* NEON with FEAT_DotProd: SDOT for int8. */
#define SMS_ISA neondot
#define SMS_BLOCKS 0
#include "../neon_tile.h"
#include "../neon_sdot.h"
#include "../table.h"
