/* Drives the team of native/runtime with tasks that only count, so that a thread sanitizer can watch it: fixed and
 * pooled tasks, joins, workers that go to sleep and are woken, runs that are cancelled or fail.
 *
 * A program is STAGES stages of WIDTH tasks, each stage behind the join of the one before. A task reads what all tasks
 * of the stage before wrote: an order that the runtime fails to keep is a data race, and a wrong sum. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "smesim/runtime.h"

enum { WORKERS = 3, STAGES = 40, WIDTH = 9, SIZE = WIDTH + 1, TASKS = STAGES * SIZE, RUNS = 30 };
enum { LONGER_THAN_WAITERS_SPIN_NS = 3000000, BETWEEN_LOOKS_NS = 100000 };

static struct sms_task tasks[TASKS];
static int32_t successors[2 * TASKS], pool_tasks[TASKS], pending[TASKS], cursors[STAGES], ran_on[TASKS];
static struct sms_worker workers[WORKERS];
static struct sms_entry entries[2 * TASKS];
static struct sms_pool pools[STAGES];
static int64_t start_ns[TASKS], end_ns[TASKS];
static int sums[STAGES + 1][WIDTH];
static int slow_stage = -1, failing_stage = -1;
/* Whether the slow task stays until the run is cancelled, has begun, and may go. */
static int wait_for_cancel;
static atomic_int slow_task_began, was_cancelled;

static struct sms_run run = {
    .tasks = tasks, .n_tasks = TASKS, .successors = successors, .workers = workers, .n_workers = WORKERS,
    .entries = entries, .pools = pools, .n_pools = STAGES / 2, .pool_tasks = pool_tasks, .pending = pending,
    .cursors = cursors, .start_ns = start_ns, .end_ns = end_ns, .ran_on = ran_on,
};

static void nap(long ns) {
    struct timespec t = {0, ns};
    nanosleep(&t, NULL);
}

/* Stands in for the dispatcher of native/runtime. */
int sms_run_task(const struct sms_run *of, const struct sms_task *task, int32_t worker) {
    (void)of, (void)worker;
    int stage = task->begin0, sum = 0;
    for (int i = 0; i < WIDTH; i++)
        sum += sums[stage][i];
    sums[stage + 1][task->begin1] = sum / WIDTH + 1;
    if (stage == slow_stage && task->begin1 == 0) {
        atomic_store(&slow_task_began, 1);
        do
            nap(LONGER_THAN_WAITERS_SPIN_NS);
        while (wait_for_cancel && !atomic_load(&was_cancelled));
    }
    return stage == failing_stage && task->begin1 == WIDTH / 2 ? SMS_NO_KERNEL : 0;
}

/* Even stages are fixed, task i to worker i % WORKERS; odd ones are drawn from a pool. */
static void build(void) {
    int edges = 0, pooled = 0, n = 0;
    for (int stage = 0; stage < STAGES; stage++) {
        int first = stage * SIZE, join = first + WIDTH;
        for (int i = 0; i < WIDTH; i++) {
            tasks[first + i] = (struct sms_task){.kind = SMS_ADD, .begin0 = stage, .begin1 = i,
                                                 .predecessor_count = stage > 0, .successor_begin = edges,
                                                 .successor_end = edges + 1};
            successors[edges++] = join;
            if (stage % 2)
                pool_tasks[pooled++] = first + i;
        }
        tasks[join] = (struct sms_task){.kind = SMS_JOIN, .predecessor_count = WIDTH, .successor_begin = edges};
        for (int i = 0; i < WIDTH && stage + 1 < STAGES; i++)
            successors[edges++] = join + 1 + i;
        tasks[join].successor_end = edges;
        if (stage % 2)
            pools[stage / 2] = (struct sms_pool){pooled - WIDTH, pooled};
    }
    for (int w = 0; w < WORKERS; w++) {
        workers[w] = (struct sms_worker){.entry_begin = n, .core = w, .unit = -1};
        for (int stage = 0; stage < STAGES; stage++) {
            if (stage % 2)
                entries[n++] = (struct sms_entry){SMS_ENTRY_POOL, stage / 2};
            for (int i = w; i < WIDTH && stage % 2 == 0; i += WORKERS)
                entries[n++] = (struct sms_entry){SMS_ENTRY_TASK, stage * SIZE + i};
        }
        workers[w].entry_end = n;
    }
}

static int finish(struct sms_team *team) {
    int status;
    while ((status = sms_team_wait(team, 5)) == SMS_RUNNING)
        ;
    return status;
}

static int run_once(struct sms_team *team) {
    for (int stage = 1; stage <= STAGES; stage++)
        for (int i = 0; i < WIDTH; i++)
            sums[stage][i] = 0;
    sms_team_start(team, &run);
    return finish(team);
}

static int all_tasks_ran_in_order(void) {
    for (int i = 0; i < WIDTH; i++)
        if (sums[STAGES][i] != STAGES)
            return 0;
    for (int t = 0; t < TASKS; t++) {
        int is_join = tasks[t].kind == SMS_JOIN;
        if (is_join ? ran_on[t] != -1 : ran_on[t] < 0 || ran_on[t] >= WORKERS)
            return 0;
        if (start_ns[t] < run.begin_ns || end_ns[t] < start_ns[t])
            return 0;
    }
    return 1;
}

static void *cancel_at_the_slow_task(void *team) {
    while (!atomic_load(&slow_task_began))
        nap(BETWEEN_LOOKS_NS);
    nap(LONGER_THAN_WAITERS_SPIN_NS);
    sms_team_cancel(team);
    atomic_store(&was_cancelled, 1);
    return NULL;
}

static int failures;

static void expect(const char *what, int holds) {
    if (!holds) {
        fprintf(stderr, "failed: %s\n", what);
        failures++;
    }
}

int main(void) {
    const int32_t anywhere[WORKERS] = {-1, -1, -1};
    struct sms_team *team = sms_team_create(WORKERS, anywhere);
    build();
    for (int i = 0; i < RUNS; i++) {
        expect("a run ends", run_once(team) == SMS_DONE);
        expect("all tasks ran, each after what it waits for", all_tasks_ran_in_order());
    }
    slow_stage = 7;
    expect("sleeping workers are woken", run_once(team) == SMS_DONE && all_tasks_ran_in_order());
    wait_for_cancel = 1;
    for (int i = 0; i < RUNS; i++) {
        pthread_t canceller;
        atomic_store(&slow_task_began, 0);
        atomic_store(&was_cancelled, 0);
        pthread_create(&canceller, NULL, cancel_at_the_slow_task, team);
        expect("a run can be cancelled while workers sleep", run_once(team) == SMS_CANCELLED);
        pthread_join(canceller, NULL);
    }
    slow_stage = -1;
    failing_stage = 21;
    expect("a task without a kernel ends the run", run_once(team) == SMS_NO_KERNEL);
    failing_stage = -1;
    expect("the team runs again", run_once(team) == SMS_DONE && all_tasks_ran_in_order());
    sms_team_destroy(team);
    sms_team_destroy(NULL);
    team = sms_team_create(WORKERS, anywhere);
    sms_team_destroy(team);
    return failures != 0;
}
