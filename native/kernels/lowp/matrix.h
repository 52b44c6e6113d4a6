/* The tables that matrix.c completes when the library is loaded. */
#ifndef SMESIM_LOWP_MATRIX_H
#define SMESIM_LOWP_MATRIX_H

#include "smesim/lowp.h"

extern struct sms_lowp sms_lowp_sme, sms_lowp_sme2;

#endif
