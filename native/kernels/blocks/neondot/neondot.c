/* NEON with FEAT_DotProd: SDOT. */
#define SMS_ISA neondot
#include "../neon_tile.h"
#include "../../lowp/neon_sdot.h"
#include "../table.h"
