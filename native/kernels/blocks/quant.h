/* What all kernels of blocks know of them, those of the matrix unit too. */
#ifndef SMESIM_QUANT_H
#define SMESIM_QUANT_H

#include "../vector/inline.h"
#include "smesim/layout_blocks.h"

enum sms_quant { SMS_Q4, SMS_Q8, SMS_Q4_1 };

enum { SMS_BLOCK_WORDS = SMS_BLOCK / SMS_S8_GROUP };

/* Words of one block of a panel. */
SMS_INLINE int64_t q_panel_words(const enum sms_quant quant) SMS_ANY_MODE {
    return SMS_NR * (quant == SMS_Q8 ? SMS_BLOCK_WORDS : SMS_BLOCK_WORDS / 2);
}

/* Scales of one block of a panel, those of what is added among them. */
SMS_INLINE int64_t q_panel_scales(const enum sms_quant quant) SMS_ANY_MODE {
    return SMS_NR * (quant == SMS_Q4_1 ? 2 : 1);
}

#endif
