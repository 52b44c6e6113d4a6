#include "events.h"

#include <stdlib.h>

static int before(const struct event *one, const struct event *other) {
    if (one->at != other->at) {
        return one->at < other->at;
    }
    if (one->priority != other->priority) {
        return one->priority < other->priority;
    }
    return one->number < other->number;
}

int agenda_add(struct agenda *agenda, double at, int32_t priority, int32_t kind, int32_t who, int32_t slot) {
    if (agenda->length == agenda->capacity) {
        int64_t capacity = agenda->capacity ? 2 * agenda->capacity : 64;
        struct event *heap = realloc(agenda->heap, (size_t)capacity * sizeof *heap);
        if (!heap) {
            return 0;
        }
        agenda->heap = heap;
        agenda->capacity = capacity;
    }
    struct event event = {at, agenda->numbered++, priority, kind, who, slot};
    int64_t place = agenda->length++;
    while (place > 0) {
        int64_t parent = (place - 1) / 2;
        if (!before(&event, &agenda->heap[parent])) {
            break;
        }
        agenda->heap[place] = agenda->heap[parent];
        place = parent;
    }
    agenda->heap[place] = event;
    return 1;
}

struct event agenda_next(struct agenda *agenda) {
    struct event first = agenda->heap[0], last = agenda->heap[--agenda->length];
    int64_t place = 0;
    for (;;) {
        int64_t child = 2 * place + 1;
        if (child >= agenda->length) {
            break;
        }
        if (child + 1 < agenda->length && before(&agenda->heap[child + 1], &agenda->heap[child])) {
            child++;
        }
        if (!before(&agenda->heap[child], &last)) {
            break;
        }
        agenda->heap[place] = agenda->heap[child];
        place = child;
    }
    agenda->heap[place] = last;
    return first;
}
