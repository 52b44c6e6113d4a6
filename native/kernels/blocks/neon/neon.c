/* NEON of Armv8.0. */
#define SMS_ISA neon
#include "../neon_tile.h"
#include "../../lowp/neon_smull.h"
#include "../table.h"
