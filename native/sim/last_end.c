#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sketch.h"

/* The arrays that the engine reads and fills, in one piece of memory each for doubles and for numbers. */
struct room {
    double *times;
    int32_t *numbers;
    uint8_t *is_join;
};

/* Turns round who waits for whom: for each task those that wait for it, in the order of their numbers. */
static void turned_round(const struct sms_sim_sketch *sketch, int32_t *count, int32_t *begin, int32_t *successors) {
    int32_t n = sketch->n_tasks, edges = sketch->before_begin[n];
    memset(begin, 0, ((size_t)n + 2) * sizeof *begin);
    for (int32_t e = 0; e < edges; e++) {
        begin[sketch->before[e] + 2]++;
    }
    for (int32_t task = 0; task < n; task++) {
        begin[task + 2] += begin[task + 1];
    }
    for (int32_t task = 0; task < n; task++) {
        count[task] = sketch->before_begin[task + 1] - sketch->before_begin[task];
        for (int32_t e = sketch->before_begin[task]; e < sketch->before_begin[task + 1]; e++) {
            successors[begin[sketch->before[e] + 1]++] = task; /* so that it ends up as where the next one's begin */
        }
    }
}

/* When the last task has ended, NaN if one has not. */
static double last_of(const struct sms_sim_part *part, const double *end_s) {
    double last_s = NAN;
    for (int32_t task = 0; task < part->n_tasks; task++) {
        if (part->is_join[task]) {
            continue;
        }
        if (isnan(end_s[task])) {
            return NAN;
        }
        last_s = end_s[task] > last_s || isnan(last_s) ? end_s[task] : last_s;
    }
    return last_s;
}

static int simulated(const struct sms_sim_sketch *sketch, const struct sms_sim_machine *machine,
                     const int32_t *class_of, struct room room, double *last_end_s) {
    size_t n_tasks = (size_t)sketch->n_tasks, n_workers = (size_t)sketch->n_workers, columns = (size_t)machine->columns;
    size_t n_edges = (size_t)sketch->before_begin[n_tasks];
    int32_t *predecessors = room.numbers, *begin = predecessors + n_tasks, *successors = begin + n_tasks + 2;
    int32_t *work_of = successors + n_edges, *counts = work_of + n_tasks * columns, *comings = counts + 2 * n_tasks;
    turned_round(sketch, predecessors, begin, successors);
    for (size_t task = 0; task < n_tasks; task++) {
        room.is_join[task] = class_of[task] < 0;
        for (size_t column = 0; column < columns; column++) {
            size_t place = (size_t)class_of[task] * columns + column;
            work_of[task * columns + column] = room.is_join[task] ? -1 : machine->work_of[place];
        }
    }
    for (int32_t worker = 0; worker < sketch->n_workers; worker++) {
        comings[worker] = worker;
    }
    struct sms_sim_part part = {
        .n_tasks = sketch->n_tasks,
        .n_workers = sketch->n_workers,
        .n_pools = sketch->n_pools,
        .is_join = room.is_join,
        .predecessor_count = predecessors,
        .successor_begin = begin,
        .successors = successors,
        .queue_begin = sketch->queue_begin,
        .queue = sketch->queue,
        .pool_begin = sketch->pool_begin,
        .pool_tasks = sketch->pool_tasks,
    };
    struct sms_sim_machine of_tasks = *machine;
    of_tasks.work_of = work_of;
    double *times = room.times;
    struct sms_sim_result result = {
        .ready_s = times,
        .start_s = times + n_tasks,
        .end_s = times + 2 * n_tasks,
        .compute_s = times + 3 * n_tasks,
        .transfer_s = times + 4 * n_tasks,
        .serial_s = times + 5 * n_tasks,
        .worker = counts,
        .waiting_for = counts + n_tasks,
        .arrivals = comings + n_workers,
    };
    int status = sms_sim_run(&part, &of_tasks, comings, part.n_workers, &result);
    if (status == SMS_SIM_OK) {
        *last_end_s = last_of(&part, result.end_s);
    }
    sms_sim_release(&result);
    return status;
}

int sms_sim_last_end(const struct sms_sim_sketch *sketch, const struct sms_sim_machine *machine,
                     const int32_t *class_of, double *last_end_s) {
    size_t n_tasks = (size_t)sketch->n_tasks, n_edges = (size_t)sketch->before_begin[n_tasks];
    size_t n_numbers = (4 + (size_t)machine->columns) * n_tasks + 2 + n_edges + 2 * (size_t)sketch->n_workers;
    struct room room = {
        .times = malloc((6 * n_tasks + 1) * sizeof(double)),
        .numbers = malloc((n_numbers + 1) * sizeof(int32_t)),
        .is_join = malloc(n_tasks + 1),
    };
    int status = SMS_SIM_NO_MEMORY;
    *last_end_s = NAN;
    if (room.times && room.numbers && room.is_join) {
        status = simulated(sketch, machine, class_of, room, last_end_s);
    }
    free(room.times);
    free(room.numbers);
    free(room.is_join);
    return status;
}
