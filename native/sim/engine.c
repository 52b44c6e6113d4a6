#include "engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "network.h"
#include "tables.h"

enum { NOBODY = -1, SEVERAL = -2 };

/* What a worker waits for before it goes on. */
enum waiting { FOR_NOTHING, FOR_TASK, FOR_FLOW, FOR_ARITHMETIC };

/* A worker on its way through its queue. `done` are its flows and, last, its arithmetic. */
struct worker {
    int32_t entry; /* the entry of its queue that it takes tasks from */
    int32_t task;
    const struct sms_sim_work *work;
    double began;
    enum waiting waiting;
    int32_t flow; /* the flow that it waits for */
    uint8_t arithmetic_done;
    uint8_t *done;
};

struct simulation {
    const struct sms_sim_part *part;
    const struct sms_sim_machine *machine;
    struct sms_sim_result *result;
    struct agenda agenda;
    struct network links;
    struct network units;
    struct worker *workers;
    uint8_t *flows_done; /* behind the workers' `done` */
    int32_t most_flows;  /* of one task */
    int32_t *drawn;      /* [pools] */
    int32_t *waiting_worker; /* [tasks] */
    int32_t *collects;       /* [tasks] joins: the worker whose tasks it collects, or SEVERAL */
    int32_t *ended;          /* whose end is not yet known to their successors */
    int32_t n_ended;
    int32_t *releasing; /* those of an instant, as they are told */
    int32_t *ready;
    int64_t capacity; /* of the three */
    double now;
    int32_t grants_capacity;
    int status;
};

static void schedule(struct simulation *s, double delay, int32_t priority, int32_t kind, int32_t who, int32_t slot) {
    if (!agenda_add(&s->agenda, s->now + delay, priority, kind, who, slot)) {
        s->status = SMS_SIM_NO_MEMORY;
    }
}

/* -- flows ------------------------------------------------------------------------------------------------------- */

static void wake_after(struct simulation *s, struct network *network, double delay, double at) {
    int32_t kind = network == &s->links ? SETTLE_LINKS : SETTLE_UNITS;
    schedule(s, delay, SHARE_BANDWIDTH, kind, ++network->wake_token, 0);
    network->wake_at = at;
}

static void flow_ends(struct simulation *s, const struct network *network, int32_t worker, int32_t slot) {
    schedule(s, 0.0, NORMAL, network == &s->links ? FLOW_ENDS : ARITHMETIC_ENDS, worker, slot);
}

static void transfer(struct simulation *s, struct network *network, int32_t kind, double amount, int32_t worker,
                     int32_t slot) {
    if (amount == 0.0 || network->net->kinds[kind].alone == INFINITY) {
        flow_ends(s, network, worker, slot);
        return;
    }
    network->flows[network->n_flows++] = (struct flow){amount, s->now, 0.0, INFINITY, kind, worker, slot};
    if (network->wake_at != s->now) {
        wake_after(s, network, 0.0, s->now);
    }
}

static void note_granted(struct simulation *s, struct network *network) {
    struct sms_sim_result *result = s->result;
    size_t n_links = (size_t)network->net->n_links;
    int is_new = 0;
    for (size_t i = 0; i < n_links; i++) {
        is_new |= network->solved[i] != network->granted[i];
    }
    if (!is_new) {
        return;
    }
    memcpy(network->granted, network->solved, n_links * sizeof *network->granted);
    if (result->n_grants == s->grants_capacity) {
        size_t capacity = s->grants_capacity ? 2 * (size_t)s->grants_capacity : 64;
        double *at = realloc(result->granted_at_s, capacity * sizeof *at);
        result->granted_at_s = at ? at : result->granted_at_s;
        double *granted = realloc(result->granted, capacity * n_links * sizeof *granted);
        result->granted = granted ? granted : result->granted;
        if (!at || !granted) {
            s->status = SMS_SIM_NO_MEMORY;
            return;
        }
        s->grants_capacity = (int32_t)capacity;
    }
    result->granted_at_s[result->n_grants] = s->now;
    memcpy(result->granted + (size_t)result->n_grants * n_links, network->granted, n_links * sizeof *network->granted);
    result->n_grants++;
}

/* Ends what ends now; once nothing more does, rates the rest and wakes up at the next end. */
static void settle(struct simulation *s, struct network *network, int32_t token) {
    if (token != network->wake_token) {
        return; /* replaced by a later one */
    }
    double due = network->wake_at;
    int32_t kept = 0, before = network->n_flows;
    for (int32_t i = 0; i < before; i++) {
        struct flow *flow = &network->flows[i];
        if (flow->end <= due) {
            flow_ends(s, network, flow->worker, flow->slot);
        } else {
            network->flows[kept++] = *flow;
        }
    }
    network->n_flows = kept;
    if (kept < before) {
        /* Who waited for these may start the next flow in this same instant: rate when they have. */
        wake_after(s, network, 0.0, s->now);
        return;
    }
    network->wake_at = INFINITY;
    network_solve(network);
    double next_end = network_rate(network, s->now);
    if (next_end < 0.0) {
        s->status = SMS_SIM_NO_RATE;
        return;
    }
    if (next_end < INFINITY) {
        double delay = next_end - s->now;
        wake_after(s, network, delay > 0.0 ? delay : 0.0, next_end);
    }
    if (network == &s->links && s->result->with_grants) {
        note_granted(s, network);
    }
}

/* -- dependencies ------------------------------------------------------------------------------------------------ */

static void end_node(struct simulation *s, int32_t node) {
    if (!s->n_ended) {
        schedule(s, 0.0, RELEASE_TASKS, RELEASE, 0, 0);
    }
    if (s->n_ended == s->capacity) { /* only where a task is in two queues */
        s->status = SMS_SIM_BAD_PART;
        return;
    }
    s->ended[s->n_ended++] = node;
}

static void become_ready(struct simulation *s, int32_t node) {
    if (s->part->is_join[node]) {
        double barrier_s = s->machine->barrier_s;
        if (s->collects[node] == SEVERAL && barrier_s != 0.0) {
            schedule(s, barrier_s, RELEASE_TASKS, JOIN_ENDS, node, 0);
        } else {
            end_node(s, node);
        }
        return;
    }
    s->result->ready_s[node] = s->now;
    int32_t worker = s->waiting_worker[node];
    if (worker != NOBODY) {
        s->waiting_worker[node] = NOBODY;
        schedule(s, 0.0, NORMAL, READY, worker, 0);
    }
}

static int by_number(const void *one, const void *other) {
    int32_t a = *(const int32_t *)one, b = *(const int32_t *)other;
    return (a > b) - (a < b);
}

/* Tells the successors of all that ended in this instant. */
static void release(struct simulation *s) {
    const struct sms_sim_part *part = s->part;
    struct sms_sim_result *result = s->result;
    int32_t n_ended = s->n_ended, n_ready = 0;
    qsort(s->ended, (size_t)n_ended, sizeof *s->ended, by_number);
    memcpy(s->releasing, s->ended, (size_t)n_ended * sizeof *s->ended);
    s->n_ended = 0;
    result->released_s = s->now;
    for (int32_t i = 0; i < n_ended; i++) {
        int32_t node = s->releasing[i], worker = result->worker[node];
        for (int32_t e = part->successor_begin[node]; e < part->successor_begin[node + 1]; e++) {
            int32_t successor = part->successors[e];
            if (worker != NOBODY && s->collects[successor] != worker) {
                s->collects[successor] = s->collects[successor] == NOBODY ? worker : SEVERAL;
            }
            if (!--result->waiting_for[successor]) {
                s->ready[n_ready++] = successor;
            }
        }
    }
    qsort(s->ready, (size_t)n_ready, sizeof *s->ready, by_number);
    for (int32_t i = 0; i < n_ready && !s->status; i++) {
        become_ready(s, s->ready[i]);
    }
}

/* -- workers ----------------------------------------------------------------------------------------------------- */

/* The worker's next task, NOBODY when there is none: from a pool, the next that nobody has drawn. */
static int32_t next_task(struct simulation *s, int32_t number) {
    const struct sms_sim_part *part = s->part;
    struct worker *worker = &s->workers[number];
    for (; worker->entry < part->queue_begin[number + 1]; worker->entry++) {
        int32_t entry = part->queue[worker->entry];
        if (entry >= 0) {
            worker->entry++;
            return entry;
        }
        int32_t pool = -1 - entry;
        if (part->pool_begin[pool] + s->drawn[pool] < part->pool_begin[pool + 1]) {
            return part->pool_tasks[part->pool_begin[pool] + s->drawn[pool]++];
        }
    }
    return NOBODY;
}

/* Goes on with a task whose flows were started, until it has to wait or the task has ended. */
static void go_on(struct simulation *s, int32_t number) {
    struct worker *worker = &s->workers[number];
    const struct sms_sim_work *work = worker->work;
    while (worker->flow < work->flow_end - work->flow_begin) {
        if (!worker->done[worker->flow]) {
            worker->waiting = FOR_FLOW;
            return;
        }
        worker->flow++;
    }
    if (worker->waiting != FOR_ARITHMETIC) {
        s->result->transfer_s[worker->task] = s->now - worker->began;
    }
    if (!worker->arithmetic_done) {
        worker->waiting = FOR_ARITHMETIC;
        return;
    }
    worker->waiting = FOR_NOTHING;
    s->result->serial_s[worker->task] = work->serial_s;
    s->result->end_s[worker->task] = s->now;
    end_node(s, worker->task);
    schedule(s, 0.0, WORKER_GOES_ON + number, GO_ON, number, 0);
}

/* Starts the arithmetic and all flows of a task that has been dispatched. */
static void work(struct simulation *s, int32_t number) {
    struct worker *worker = &s->workers[number];
    const struct sms_sim_work *work = worker->work;
    worker->began = s->now;
    worker->flow = 0;
    worker->arithmetic_done = 0;
    for (int32_t i = work->flow_begin; i < work->flow_end; i++) {
        worker->done[i - work->flow_begin] = 0;
        transfer(s, &s->links, s->machine->flows[i].kind, s->machine->flows[i].amount, number, i - work->flow_begin);
    }
    if (work->unit < 0) {
        s->result->compute_s[worker->task] = work->compute_s;
        schedule(s, work->compute_s, NORMAL, ARITHMETIC_ENDS, number, 0);
    } else {
        transfer(s, &s->units, work->unit, work->compute_s, number, 0);
    }
    go_on(s, number);
}

/* Hands a worker the task that it has come to and whose predecessors have ended. */
static void dispatch(struct simulation *s, int32_t number) {
    const struct sms_sim_machine *machine = s->machine;
    struct worker *worker = &s->workers[number];
    int32_t task = worker->task;
    int32_t found = machine->work_of[(int64_t)task * machine->columns + machine->column_of[number]];
    if (found < 0) {
        s->status = SMS_SIM_NO_WORK;
        return;
    }
    worker->work = &machine->works[found];
    s->result->worker[task] = number;
    s->result->start_s[task] = s->now + machine->dispatch_s;
    if (machine->dispatch_s != 0.0 || worker->work->serial_s != 0.0) {
        schedule(s, machine->dispatch_s + worker->work->serial_s, NORMAL, DISPATCHED, number, 0);
    } else {
        work(s, number);
    }
}

static void take_next(struct simulation *s, int32_t number) {
    struct worker *worker = &s->workers[number];
    int32_t task = worker->task = next_task(s, number);
    if (task == NOBODY) {
        s->result->arrivals[s->result->n_arrivals++] = number;
    } else if (isnan(s->result->ready_s[task])) {
        s->waiting_worker[task] = number;
        worker->waiting = FOR_TASK;
    } else {
        dispatch(s, number);
    }
}

static void flow_ended(struct simulation *s, int32_t number, int32_t slot) {
    struct worker *worker = &s->workers[number];
    worker->done[slot] = 1;
    if (worker->waiting == FOR_FLOW && worker->flow == slot) {
        go_on(s, number);
    }
}

static void arithmetic_ended(struct simulation *s, int32_t number) {
    struct worker *worker = &s->workers[number];
    if (worker->work->unit >= 0) {
        s->result->compute_s[worker->task] = s->now - worker->began;
    }
    worker->arithmetic_done = 1;
    if (worker->waiting == FOR_ARITHMETIC) {
        go_on(s, number);
    }
}

static void happen(struct simulation *s, struct event event) {
    switch ((enum event_kind)event.kind) {
        case START:
        case GO_ON: take_next(s, event.who); break;
        case READY: dispatch(s, event.who); break;
        case DISPATCHED: work(s, event.who); break;
        case FLOW_ENDS: flow_ended(s, event.who, event.slot); break;
        case ARITHMETIC_ENDS: arithmetic_ended(s, event.who); break;
        case RELEASE: release(s); break;
        case JOIN_ENDS: end_node(s, event.who); break;
        case SETTLE_LINKS: settle(s, &s->links, event.who); break;
        case SETTLE_UNITS: settle(s, &s->units, event.who); break;
    }
}

/* -- the part ---------------------------------------------------------------------------------------------------- */

static int network_is_good(const struct sms_sim_network *net) {
    for (int32_t k = 0; k < net->n_kinds; k++) {
        const struct sms_sim_kind *kind = &net->kinds[k];
        if (kind->path_begin < 0 || kind->path_end < kind->path_begin ||
            !all_within(net->paths + kind->path_begin, kind->path_end - kind->path_begin, 0, net->n_links)) {
            return 0;
        }
    }
    return 1;
}

/* The most flows that a task has, or -1 for tables with a number that is out of range. */
static int32_t checked(const struct sms_sim_part *part, const struct sms_sim_machine *machine) {
    int32_t most = 0;
    int is_good = are_begins(part->successor_begin, part->n_tasks) && are_begins(part->queue_begin, part->n_workers) &&
                  are_begins(part->pool_begin, part->n_pools);
    is_good = is_good && all_within(part->successors, part->successor_begin[part->n_tasks], 0, part->n_tasks) &&
              all_within(part->queue, part->queue_begin[part->n_workers], -part->n_pools, part->n_tasks) &&
              all_within(part->pool_tasks, part->pool_begin[part->n_pools], 0, part->n_tasks) &&
              all_within(machine->column_of, part->n_workers, 0, machine->columns) &&
              all_within(machine->work_of, (int64_t)part->n_tasks * machine->columns, -1, machine->n_works) &&
              network_is_good(&machine->links) && network_is_good(&machine->units);
    for (int32_t i = 0; is_good && i < machine->n_flows; i++) {
        is_good = machine->flows[i].kind >= 0 && machine->flows[i].kind < machine->links.n_kinds;
    }
    for (int32_t i = 0; is_good && i < machine->n_works; i++) {
        const struct sms_sim_work *work = &machine->works[i];
        int32_t flows = work->flow_end - work->flow_begin;
        is_good = flows >= 0 && work->flow_begin >= 0 && work->flow_end <= machine->n_flows &&
                  work->unit < machine->units.n_kinds;
        most = flows > most ? flows : most;
    }
    return is_good ? most : -1;
}

static int start(struct simulation *s, const int32_t *arrivals, int32_t n_arrivals) {
    const struct sms_sim_part *part = s->part;
    size_t n_tasks = (size_t)part->n_tasks, n_workers = (size_t)part->n_workers;
    s->most_flows = checked(part, s->machine);
    if (s->most_flows < 0 || !all_within(arrivals, n_arrivals, 0, part->n_workers)) {
        return SMS_SIM_BAD_PART;
    }
    s->capacity = (int64_t)n_tasks + part->queue_begin[part->n_workers] + part->pool_begin[part->n_pools];
    size_t room = ((size_t)s->capacity + 1) * sizeof(int32_t);
    s->workers = calloc(n_workers + 1, sizeof *s->workers);
    s->flows_done = calloc(n_workers * (size_t)s->most_flows + 1, 1);
    s->drawn = calloc((size_t)part->n_pools + 1, sizeof *s->drawn);
    s->waiting_worker = malloc(room);
    s->collects = malloc(room);
    s->ended = malloc(room);
    s->releasing = malloc(room);
    s->ready = malloc(room);
    int have = s->workers && s->flows_done && s->drawn && s->waiting_worker && s->collects && s->ended && s->releasing &&
               s->ready;
    have &= network_start(&s->links, &s->machine->links, part->n_workers * s->most_flows);
    have &= network_start(&s->units, &s->machine->units, part->n_workers);
    if (!have) {
        return SMS_SIM_NO_MEMORY;
    }
    for (size_t w = 0; w < n_workers; w++) {
        s->workers[w].entry = part->queue_begin[w];
        s->workers[w].done = s->flows_done + w * (size_t)s->most_flows;
    }
    struct sms_sim_result *result = s->result;
    for (int32_t task = 0; task < part->n_tasks; task++) {
        result->ready_s[task] = result->start_s[task] = result->end_s[task] = NAN;
        result->compute_s[task] = result->transfer_s[task] = result->serial_s[task] = NAN;
        result->worker[task] = s->waiting_worker[task] = s->collects[task] = NOBODY;
        result->waiting_for[task] = part->predecessor_count[task];
    }
    for (int32_t i = 0; i < n_arrivals; i++) {
        schedule(s, 0.0, URGENT, START, arrivals[i], 0);
    }
    for (int32_t task = 0; task < part->n_tasks && !s->status; task++) {
        if (!part->predecessor_count[task]) {
            become_ready(s, task);
        }
    }
    return s->status;
}

int sms_sim_run(const struct sms_sim_part *part, const struct sms_sim_machine *machine, const int32_t *arrivals,
                int32_t n_arrivals, struct sms_sim_result *result) {
    struct simulation s = {.part = part, .machine = machine, .result = result};
    result->n_arrivals = result->n_grants = 0;
    result->released_s = 0.0;
    result->granted_at_s = result->granted = NULL;
    s.status = start(&s, arrivals, n_arrivals);
    while (!s.status && s.agenda.length) {
        struct event event = agenda_next(&s.agenda);
        s.now = event.at;
        happen(&s, event);
    }
    network_stop(&s.links);
    network_stop(&s.units);
    free(s.agenda.heap);
    free(s.workers);
    free(s.flows_done);
    free(s.drawn);
    free(s.waiting_worker);
    free(s.collects);
    free(s.ended);
    free(s.releasing);
    free(s.ready);
    return s.status;
}

void sms_sim_release(struct sms_sim_result *result) {
    free(result->granted_at_s);
    free(result->granted);
    result->granted_at_s = result->granted = NULL;
}
