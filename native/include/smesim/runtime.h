/* Runs a program: a team of pinned threads, one queue each plus shared pools, atomic dependency counts, and a
 * timestamp before and after every task. Nothing is allocated and no Python runs between start and end.
 *
 * Life of a team: create, then any number of (start, wait until done), then destroy. */
#ifndef SMESIM_RUNTIME_H
#define SMESIM_RUNTIME_H

#include <stdint.h>

#include "smesim/blocks.h"
#include "smesim/kernels.h"
#include "smesim/lowp.h"
#include "smesim/program.h"

/* One run. Every array belongs to the caller and must outlive the run; the last block is written by the team. */
struct sms_run {
    const struct sms_op *ops;
    const struct sms_task *tasks;
    int32_t n_tasks;
    const int32_t *successors;
    const struct sms_worker *workers;
    int32_t n_workers;
    const struct sms_entry *entries;
    const struct sms_pool *pools;
    int32_t n_pools;
    const int32_t *pool_tasks;
    const struct sms_buffer *buffer_facts;
    void *const *buffers;                      /* one pointer a buffer */
    const struct sms_kernels *const *kernels;  /* one table a worker */
    const struct sms_lowp *const *lowp;        /* one table a worker: products with weights of low precision */
    const struct sms_blocks *const *blocks;    /* one table a worker: products with weights in blocks */
    void *const *scratch;                      /* one block a worker, sms_scratch_bytes() long */
    const double *handicaps;                   /* one a worker: its tasks take so many times as long; NULL: none does */

    int32_t *pending;   /* [n_tasks] predecessors that have not ended */
    int32_t *cursors;   /* [n_pools] next task to draw */
    int64_t *start_ns;  /* [n_tasks] */
    int64_t *end_ns;    /* [n_tasks]; a join's end is when its last predecessor ended */
    int32_t *ran_on;    /* [n_tasks] worker, -1 for joins */
    int64_t begin_ns;   /* when all workers stood ready */
};

struct sms_team;

enum sms_status { SMS_RUNNING = 0, SMS_DONE = 1, SMS_CANCELLED = 2, SMS_NO_KERNEL = 3 };

/* Threads pinned to cores[i], or left to the system where cores[i] < 0. NULL if the system refuses a thread. */
struct sms_team *sms_team_create(int32_t n_workers, const int32_t *cores);
void sms_team_destroy(struct sms_team *team);

/* Returns at once. One run at a time. */
void sms_team_start(struct sms_team *team, struct sms_run *run);
/* Waits at most timeout_ms; an enum sms_status. */
int sms_team_wait(struct sms_team *team, int timeout_ms);
/* Asks the workers to stop after the task in hand. */
void sms_team_cancel(struct sms_team *team);
/* How many workers could be pinned to the core that was asked for. */
int sms_team_pinned(const struct sms_team *team);

/* Scratch one worker needs for any task of the program, in bytes. */
int64_t sms_scratch_bytes(const struct sms_kernels *kernels, const struct sms_op *ops, const struct sms_task *tasks,
                          int32_t n_tasks);

/* Runs one task on the calling thread; 0, or SMS_NO_KERNEL for a kind that has no kernel. */
int sms_run_task(const struct sms_run *run, const struct sms_task *task, int32_t worker);

/* Monotonic clock, nanoseconds. */
int64_t sms_now_ns(void);

#endif
