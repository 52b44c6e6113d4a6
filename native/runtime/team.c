/* The team: how workers walk their queues and hand tasks on. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "smesim/runtime.h"
#include "wait.h"

struct member {
    struct sms_team *team;
    pthread_t thread;
    int32_t index;
    bool pinned;
};

struct sms_team {
    struct sms_gate gate;   /* workers wait here for tasks */
    struct sms_gate rest;   /* and here for the next run: whoever has done his part is not woken by the others' */
    struct sms_gate front;  /* the caller waits here for the end of a run */
    struct sms_run *run;
    uint64_t run_number;
    int32_t n_workers, arrived, left;
    int status;
    bool cancelled, closing;
    struct member members[];
};

/* What a worker can wait for. Cancelling a run ends every wait. */
struct awaited {
    const struct sms_team *team;
    const int32_t *count;
    int32_t value;
    uint64_t seen_run;
};

static bool is_cancelled(const struct sms_team *team) { return __atomic_load_n(&team->cancelled, __ATOMIC_SEQ_CST); }

static bool task_is_ready(const void *context) {
    const struct awaited *a = context;
    return __atomic_load_n(a->count, __ATOMIC_SEQ_CST) == a->value || is_cancelled(a->team);
}

static bool run_is_there(const void *context) {
    const struct awaited *a = context;
    return __atomic_load_n(&a->team->run_number, __ATOMIC_SEQ_CST) != a->seen_run ||
           __atomic_load_n(&a->team->closing, __ATOMIC_SEQ_CST);
}

static bool all_have_left(const void *context) {
    const struct sms_team *team = context;
    return __atomic_load_n(&team->left, __ATOMIC_SEQ_CST) == team->n_workers;
}

static void fail(struct sms_team *team, int status) {
    int expected = SMS_RUNNING;
    __atomic_compare_exchange_n(&team->status, &expected, status, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    __atomic_store_n(&team->cancelled, true, __ATOMIC_SEQ_CST);
    sms_gate_open(&team->gate);
}

/* Tells the successors of a task that it has ended, and says whether that made any of them ready. A join that becomes
 * complete ends here and now; joins follow one another only a few deep (tasks -> operator -> segment), so recursion is
 * bounded by the program's shape. */
static bool complete(const struct sms_run *run, int32_t task) {
    const struct sms_task *t = &run->tasks[task];
    bool any_ready = false;
    for (int32_t i = t->successor_begin; i < t->successor_end; i++) {
        int32_t next = run->successors[i];
        if (__atomic_sub_fetch(&run->pending[next], 1, __ATOMIC_SEQ_CST) != 0)
            continue;
        if (run->tasks[next].kind == SMS_JOIN) {
            run->start_ns[next] = run->end_ns[next] = sms_now_ns();
            any_ready |= complete(run, next);
        } else {
            any_ready = true;
        }
    }
    return any_ready;
}

/* A worker with a handicap is busy for as many times the time that its task took. When that is over. */
static int64_t held_back(const struct sms_run *run, int32_t task, int32_t worker) {
    int64_t now = sms_now_ns(), start = run->start_ns[task];
    int64_t until = start + (int64_t)((double)(now - start) * run->handicaps[worker]);
    while (now < until)
        now = sms_now_ns();
    return now;
}

static bool run_one(struct sms_team *team, const struct sms_run *run, int32_t task, int32_t worker) {
    struct awaited ready = {team, &run->pending[task], 0, 0};
    sms_gate_wait(&team->gate, task_is_ready, &ready, 0);
    if (is_cancelled(team))
        return false;
    run->ran_on[task] = worker;
    run->start_ns[task] = sms_now_ns();
    int status = sms_run_task(run, &run->tasks[task], worker);
    run->end_ns[task] = run->handicaps ? held_back(run, task, worker) : sms_now_ns();
    if (status) {
        fail(team, status);
        return false;
    }
    if (complete(run, task))  /* a call to the system for each task would cost whoever works some 5 us */
        sms_gate_open(&team->gate);
    return true;
}

static bool drain_pool(struct sms_team *team, const struct sms_run *run, int32_t pool, int32_t worker) {
    const struct sms_pool *p = &run->pools[pool];
    for (;;) {
        int32_t drawn = __atomic_fetch_add(&run->cursors[pool], 1, __ATOMIC_RELAXED);
        if (drawn >= p->end - p->begin)
            return true;
        if (!run_one(team, run, run->pool_tasks[p->begin + drawn], worker))
            return false;
    }
}

static void walk_queue(struct sms_team *team, struct sms_run *run, int32_t worker) {
    const struct sms_worker *w = &run->workers[worker];
    for (int32_t i = w->entry_begin; i < w->entry_end; i++) {
        const struct sms_entry *entry = &run->entries[i];
        bool go_on = entry->kind == SMS_ENTRY_TASK ? run_one(team, run, entry->index, worker)
                                                   : drain_pool(team, run, entry->index, worker);
        if (!go_on)
            return;
    }
}

/* All workers set off together, so that waking a sleeping thread is not counted as the program's time. */
static void line_up(struct sms_team *team, struct sms_run *run) {
    struct awaited all = {team, &team->arrived, team->n_workers, 0};
    int64_t now = sms_now_ns(); /* read before the others may go, so that no task starts before the run does */
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_SEQ_CST) == team->n_workers) {
        run->begin_ns = now;
        sms_gate_open(&team->gate);
    } else {
        sms_gate_wait(&team->gate, task_is_ready, &all, 0);
    }
}

static bool pin(pthread_t thread, int32_t core) {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return pthread_setaffinity_np(thread, sizeof set, &set) == 0;
#else
    (void)thread, (void)core; /* macOS has no pinning; the scheduler places the threads */
    return false;
#endif
}

static void *serve(void *argument) {
    struct member *me = argument;
    struct sms_team *team = me->team;
    uint64_t seen = 0;
    for (;;) {
        struct awaited next = {team, NULL, 0, seen};
        sms_gate_wait(&team->rest, run_is_there, &next, 0);
        if (__atomic_load_n(&team->closing, __ATOMIC_SEQ_CST))
            return NULL;
        seen = __atomic_load_n(&team->run_number, __ATOMIC_SEQ_CST);
        line_up(team, team->run);
        walk_queue(team, team->run, me->index);
        if (__atomic_add_fetch(&team->left, 1, __ATOMIC_SEQ_CST) == team->n_workers)
            sms_gate_open(&team->front);
    }
}

struct sms_team *sms_team_create(int32_t n_workers, const int32_t *cores) {
    struct sms_team *team = calloc(1, sizeof *team + (size_t)n_workers * sizeof team->members[0]);
    if (!team)
        return NULL;
    for (int32_t i = 0; i < n_workers; i++) {
        struct member *m = &team->members[i];
        m->team = team;
        m->index = i;
        if (pthread_create(&m->thread, NULL, serve, m)) {
            sms_team_destroy(team);
            return NULL;
        }
        team->n_workers++;
        m->pinned = cores[i] >= 0 && pin(m->thread, cores[i]);
    }
    team->left = team->n_workers;
    return team;
}

void sms_team_destroy(struct sms_team *team) {
    if (!team)
        return;
    sms_team_cancel(team);
    __atomic_store_n(&team->closing, true, __ATOMIC_SEQ_CST);
    sms_gate_open(&team->rest);
    for (int32_t i = 0; i < team->n_workers; i++)
        pthread_join(team->members[i].thread, NULL);
    free(team);
}

void sms_team_start(struct sms_team *team, struct sms_run *run) {
    for (int32_t i = 0; i < run->n_tasks; i++) {
        run->pending[i] = run->tasks[i].predecessor_count;
        run->ran_on[i] = -1;
        run->start_ns[i] = run->end_ns[i] = 0;
    }
    memset(run->cursors, 0, sizeof *run->cursors * (size_t)run->n_pools);
    team->run = run;
    team->status = SMS_RUNNING;
    team->cancelled = false;
    team->arrived = 0;
    __atomic_store_n(&team->left, 0, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&team->run_number, 1, __ATOMIC_SEQ_CST);
    sms_gate_open(&team->rest);
}

int sms_team_wait(struct sms_team *team, int timeout_ms) {
    if (!sms_gate_wait(&team->front, all_have_left, team, (int64_t)timeout_ms * 1000000))
        return SMS_RUNNING;
    int status = __atomic_load_n(&team->status, __ATOMIC_SEQ_CST);
    return status == SMS_RUNNING ? SMS_DONE : status;
}

void sms_team_cancel(struct sms_team *team) {
    if (!all_have_left(team))
        fail(team, SMS_CANCELLED);
}

int sms_team_pinned(const struct sms_team *team) {
    int pinned = 0;
    for (int32_t i = 0; i < team->n_workers; i++)
        pinned += team->members[i].pinned;
    return pinned;
}
