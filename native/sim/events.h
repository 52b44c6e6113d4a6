/* What is to happen, in the order of SimPy's heap: by time, then by priority, then by who was scheduled first. */
#ifndef SMESIM_SIM_EVENTS_H
#define SMESIM_SIM_EVENTS_H

#include <stdint.h>

/* Priorities within an instant; see smesim/sim/clock.py. */
enum { URGENT = 0, NORMAL = 1, SHARE_BANDWIDTH = 2, WORKER_GOES_ON = 16, RELEASE_TASKS = 1 << 20 };

enum event_kind { START, READY, DISPATCHED, FLOW_ENDS, ARITHMETIC_ENDS, GO_ON, RELEASE, JOIN_ENDS, SETTLE_LINKS, SETTLE_UNITS };

struct event {
    double at;
    uint64_t number;
    int32_t priority;
    int32_t kind;
    int32_t who;  /* a worker, a join, or the token of a wake-up */
    int32_t slot; /* of FLOW_ENDS: which of the worker's flows */
};

struct agenda {
    struct event *heap;
    int64_t length;
    int64_t capacity;
    uint64_t numbered;
};

/* False when there is no memory. */
int agenda_add(struct agenda *agenda, double at, int32_t priority, int32_t kind, int32_t who, int32_t slot);

/* The next event; the agenda must not be empty. */
struct event agenda_next(struct agenda *agenda);

#endif
