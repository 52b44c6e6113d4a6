/* Shared rates as a fluid; see smesim/sim/fluid.py, of which this is the same in C. */
#ifndef SMESIM_SIM_NETWORK_H
#define SMESIM_SIM_NETWORK_H

#include "engine.h"

#define TICKS_PER_S 8796093022208.0 /* 2**43 */

/* One flow under way: `remaining` was left at `since`, and shrinks at `rate` until `end`. */
struct flow {
    double remaining;
    double since;
    double rate;
    double end;
    int32_t kind;
    int32_t worker;
    int32_t slot; /* which of its worker's flows */
};

/* A kind with flows that cross a full link, as the rates are being found. */
struct rising {
    double cap;
    int32_t kind;
};

struct network {
    const struct sms_sim_network *net;
    struct flow *flows;
    int32_t n_flows;
    int32_t *count;        /* [kinds] flows of each kind */
    double *rates;         /* [kinds] */
    double *demand;        /* [links] */
    double *left;          /* [links] */
    int32_t *waiting;      /* [links], -1: nobody is limited by it */
    uint8_t *narrowest;    /* [links] */
    struct rising *rising; /* [kinds] */
    double *granted;       /* [links] what the links carry */
    double *solved;        /* [links] what they carry by the rates that were just found */
    double wake_at;
    int32_t wake_token; /* of the only wake-up that counts; others were replaced by it */
};

/* False when there is no memory. `most_flows` can be under way at once. */
int network_start(struct network *network, const struct sms_sim_network *net, int32_t most_flows);
void network_stop(struct network *network);

/* The rate of each kind that has flows, and in `solved` the sum on every link. */
void network_solve(struct network *network);

/* Gives every flow the rate of its kind from `now` on; the next end, infinite without flows, negative if a rate is
 * not above zero. */
double network_rate(struct network *network, double now);

#endif
