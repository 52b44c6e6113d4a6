/* How tables are looked up, for each kind of them. Its registry defines `tables`, fastest first and those that are never
 * the best behind the one that runs everywhere, and `supported`, and then SMS_LOOKUP(kind) for the functions that the
 * header of struct sms_{kind} promises. */
#ifndef SMESIM_LOOKUP_H
#define SMESIM_LOOKUP_H

#include <stddef.h>
#include <string.h>

#define SMS_LOOKUP(kind)                                                          \
    const struct sms_##kind *sms_##kind##_at(int32_t index) {                     \
        const int32_t count = sizeof tables / sizeof *tables;                     \
        return index >= 0 && index < count ? tables[index] : NULL;                \
    }                                                                             \
                                                                                  \
    int32_t sms_##kind##_supported(const struct sms_##kind *table) {              \
        return supported(table);                                                  \
    }                                                                             \
                                                                                  \
    const struct sms_##kind *sms_##kind##_find(const char *isa) {                 \
        const struct sms_##kind *table;                                           \
        for (int32_t i = 0; (table = sms_##kind##_at(i)); i++)                    \
            if (strcmp(table->isa, isa) == 0)                                     \
                return supported(table) ? table : NULL;                           \
        return NULL;                                                              \
    }                                                                             \
                                                                                  \
    const struct sms_##kind *sms_##kind##_best(void) {                            \
        const struct sms_##kind *table = NULL;                                    \
        for (int32_t i = 0; (table = sms_##kind##_at(i)); i++)                    \
            if (!table->test_only && !table->matrix && supported(table))          \
                break;                                                            \
        return table;                                                             \
    }                                                                             \
    typedef int sms_##kind##_looked_up /* takes the semicolon */

#endif
