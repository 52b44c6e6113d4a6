/* Which keys a query row sees: causality, as the stages of attention on every ISA cut it. */
#ifndef SMESIM_CAUSAL_H
#define SMESIM_CAUSAL_H

#include "inline.h"
#include "smesim/kernels.h"

/* Keys of a block that row r sees. */
SMS_INLINE int64_t sms_visible(const struct sms_attention_rows *at, int64_t row, int64_t key0,
                               int64_t keys) SMS_ANY_MODE {
    const int64_t visible = at->position + row / at->group + 1 - key0;
    return visible < 0 ? 0 : visible < keys ? visible : keys;
}

#endif
