/* What tables of numbers must be for the engine to follow them blindly. */
#ifndef SMESIM_SIM_TABLES_H
#define SMESIM_SIM_TABLES_H

#include <stdint.h>

/* Whether all of them are from `least` to before `end`. */
int all_within(const int32_t *numbers, int64_t count, int32_t least, int32_t end);

/* Whether they say, from 0 on and never backwards, where each of so many things begins and the last one ends. */
int are_begins(const int32_t *begin, int32_t count);

#endif
