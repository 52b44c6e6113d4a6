/* An operator by itself, as smesim/plan/sketch.py draws it: which of its tasks are alike, and when the last one ends.
 *
 * A part has arrays that follow from others, and asks for a work of each task. Of a sketch only what it says itself is
 * handed over, its costs once for each class of tasks, and the rest is worked out here.
 */
#ifndef SMESIM_SIM_SKETCH_H
#define SMESIM_SIM_SKETCH_H

#include "engine.h"

/* Columns of a task: op, kind, worker, begin0, end0, begin1, end1, begin2, end2, slot, state. */
enum sms_sim_columns { SMS_SIM_TASK_COLUMNS = 11 };

struct sms_sim_sketch {
    int32_t n_tasks;
    int32_t n_workers;
    int32_t n_pools;
    const int32_t *tasks;         /* [n_tasks][SMS_SIM_TASK_COLUMNS] */
    const int32_t *before_begin;  /* [n_tasks + 1] */
    const int32_t *before;        /* the tasks that each waits for */
    const int32_t *queue_begin;   /* queues and pools as those of a part */
    const int32_t *queue;
    const int32_t *pool_begin;
    const int32_t *pool_tasks;
    int32_t m;                    /* of the operator: rows, columns, and the most rows of a strip */
    int32_t n;
    int32_t lhs_mr;
};

/* How costs depend on the ranges of a task, by its kind: see smesim/sim/classes.py. */
struct sms_sim_kinds {
    int32_t n_kinds;
    int32_t join;
    int32_t panel;             /* columns of a panel */
    const uint8_t *in_strips;  /* [n_kinds] whether axis 0 counts strips of rows */
    const uint8_t *by_length;  /* [n_kinds][3] whether of an axis only the length counts */
};

/* The class of each task, -1 of joins, and of each class its first task and whether workers of a column come to it:
 * reached[class * columns + column]. The arrays have room for a class a task. The number of classes, or less a status. */
int32_t sms_sim_classes(const struct sms_sim_sketch *sketch, const struct sms_sim_kinds *kinds, int32_t columns,
                        const int32_t *column_of, int32_t *class_of, int32_t *first, uint8_t *reached);

/* When the last task ends; the workers come in the order of their numbers. NaN if a task never runs, or there is none.
 * The rows of `machine->work_of` are those of the classes. */
int sms_sim_last_end(const struct sms_sim_sketch *sketch, const struct sms_sim_machine *machine,
                     const int32_t *class_of, double *last_end_s);

#endif
