#include "tables.h"

int all_within(const int32_t *numbers, int64_t count, int32_t least, int32_t end) {
    for (int64_t i = 0; i < count; i++) {
        if (numbers[i] < least || numbers[i] >= end) {
            return 0;
        }
    }
    return 1;
}

int are_begins(const int32_t *begin, int32_t count) {
    int is_good = begin[0] == 0;
    for (int32_t i = 0; i < count; i++) {
        is_good &= begin[i] <= begin[i + 1];
    }
    return is_good;
}
