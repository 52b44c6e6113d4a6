/* The discrete-event engine of the simulator, compiled.
 *
 * It does what smesim/sim/engine.py and smesim/sim/fluid.py do, in the same order and with the same floating-point
 * operations, so that its results are theirs bit for bit. What is simulated and why is explained there; here is what
 * the arrays mean. It knows no operators, chips or kernels: a part is tasks, joins, queues and pools, and what a task
 * costs on a worker comes in as a table.
 */
#ifndef SMESIM_SIM_ENGINE_H
#define SMESIM_SIM_ENGINE_H

#include <stdint.h>

/* Tasks 0 .. n_tasks - 1; `begin` arrays have one entry more than there are things, and say where each one's begin. */
struct sms_sim_part {
    int32_t n_tasks;
    int32_t n_workers;
    int32_t n_pools;
    const uint8_t *is_join;            /* [n_tasks] */
    const int32_t *predecessor_count;  /* [n_tasks] */
    const int32_t *successor_begin;    /* [n_tasks + 1] */
    const int32_t *successors;
    const int32_t *queue_begin;        /* [n_workers + 1] */
    const int32_t *queue;              /* a task t as t, a visit to pool p as -1 - p */
    const int32_t *pool_begin;         /* [n_pools + 1] */
    const int32_t *pool_tasks;
};

/* Flows that take the same path with the same cap, so that they always have the same rate. */
struct sms_sim_kind {
    double cap;          /* units of work (bytes, or seconds of a matrix unit) per second; may be infinite */
    double alone;        /* the same with no other flow about */
    int32_t path_begin;  /* its links in `paths` */
    int32_t path_end;
};

/* Shared rates. Kinds are in the order in which rates are solved: by the names of their links, then by cap. */
struct sms_sim_network {
    int32_t n_links;
    int32_t n_kinds;
    int32_t contention;  /* 0: every flow gets what it would get alone */
    const double *capacity;  /* [n_links] */
    const struct sms_sim_kind *kinds;
    const int32_t *paths;
};

struct sms_sim_flow {
    double amount;
    int32_t kind;
};

/* What a task asks for on a worker: see `Work` in engine.py. */
struct sms_sim_work {
    double compute_s;
    double serial_s;
    int32_t unit;  /* a kind of the network of units, or -1 */
    int32_t flow_begin;
    int32_t flow_end;
};

struct sms_sim_machine {
    double dispatch_s;
    double barrier_s;
    struct sms_sim_network links;
    struct sms_sim_network units;
    int32_t n_works;
    int32_t n_flows;
    const struct sms_sim_work *works;
    const struct sms_sim_flow *flows;
    /* Which work a task is on a worker: work_of[task * columns + column_of[worker]], or -1 for none. */
    int32_t columns;
    const int32_t *column_of;
    const int32_t *work_of;
};

/* What happened; the arrays are the caller's and are filled. NaN and -1 for joins. */
struct sms_sim_result {
    double *ready_s;
    double *start_s;
    double *end_s;
    double *compute_s;
    double *transfer_s;
    double *serial_s;
    int32_t *worker;
    int32_t *waiting_for;  /* predecessors that have not ended */
    int32_t *arrivals;     /* [n_workers] */
    int32_t n_arrivals;
    double released_s;     /* when the last task or join was known to all */
    int32_t with_grants;   /* whether changes of what the links carry are noted */
    int32_t n_grants;
    double *granted_at_s;  /* [n_grants], belongs to the result: see sms_sim_release */
    double *granted;       /* [n_grants][links] */
};

enum sms_sim_status {
    SMS_SIM_OK = 0,
    SMS_SIM_NO_MEMORY = 1,
    SMS_SIM_BAD_PART = 2,  /* a number in the part or in the tables is out of range */
    SMS_SIM_NO_WORK = 3,   /* a task came to a worker that the table has no work for */
    SMS_SIM_NO_RATE = 4    /* a flow's rate came out as zero */
};

/* Simulates a part from time 0; the workers come to it in the order of `arrivals`, of which there are so many. */
int sms_sim_run(const struct sms_sim_part *part, const struct sms_sim_machine *machine, const int32_t *arrivals,
                int32_t n_arrivals, struct sms_sim_result *result);

/* Gives back what sms_sim_run allocated for the result. */
void sms_sim_release(struct sms_sim_result *result);

#endif
