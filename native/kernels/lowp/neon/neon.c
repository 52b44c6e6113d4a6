/* NEON of Armv8.0, which every aarch64 CPU has. */
#define SMS_ISA neon
#define SMS_BLOCKS 0
#include "../neon_tile.h"
#include "../neon_smull.h"
#include "../table.h"
