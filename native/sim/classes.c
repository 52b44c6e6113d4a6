#include <stdlib.h>
#include <string.h>

#include "sketch.h"
#include "tables.h"

/* What tasks of one class have in common: kind, and begin and end of each axis, or -1 and how long it is. */
enum { KEY = 7 };

struct key {
    int32_t numbers[KEY];
};

/* First row of a strip; strips are balanced, so some have a row more than others. */
static int32_t strip_row(const struct sms_sim_sketch *sketch, int32_t strip) {
    int64_t strips = ((int64_t)sketch->m + sketch->lhs_mr - 1) / sketch->lhs_mr;
    return (int32_t)((int64_t)strip * sketch->m / strips);
}

static struct key key_of(const struct sms_sim_sketch *sketch, const struct sms_sim_kinds *kinds, const int32_t *task) {
    int32_t kind = task[1];
    struct key key = {{kind}};
    for (int axis = 0; axis < 3; axis++) {
        int32_t begin = task[3 + 2 * axis], end = task[4 + 2 * axis];
        if (axis == 0 && kinds->in_strips[kind]) {
            end = strip_row(sketch, end) - strip_row(sketch, begin);
            begin = -1;
        } else if (kinds->by_length[3 * kind + axis]) {
            /* The last columns of a product may be those of a panel that is not full. */
            int32_t sign = axis == 1 && (int64_t)end * kinds->panel > sketch->n ? -1 : 1;
            end = (end - begin) * sign;
            begin = -1;
        }
        key.numbers[1 + 2 * axis] = begin;
        key.numbers[2 + 2 * axis] = end;
    }
    return key;
}

static uint32_t hash(const struct key *key) {
    uint32_t hash = 2166136261u; /* FNV-1a, word by word */
    for (int i = 0; i < KEY; i++) {
        hash = (hash ^ (uint32_t)key->numbers[i]) * 16777619u;
    }
    return hash ^ hash >> 15;
}

/* Says of the tasks that an entry of a queue leads to that a column comes to them. */
static void reach(const struct sms_sim_sketch *sketch, int32_t entry, int32_t columns, int32_t column,
                  const int32_t *class_of, uint8_t *reached) {
    const int32_t *task = &entry, *end = task + 1;
    if (entry < 0) {
        task = sketch->pool_tasks + sketch->pool_begin[-1 - entry];
        end = sketch->pool_tasks + sketch->pool_begin[-entry];
    }
    for (; task < end; task++) {
        if (class_of[*task] >= 0) {
            reached[(int64_t)class_of[*task] * columns + column] = 1;
        }
    }
}

/* Numbers the classes in the order of their first tasks, by a table of twice as many places as there are tasks. */
static int32_t numbered(const struct sms_sim_sketch *sketch, const struct sms_sim_kinds *kinds, int32_t *class_of,
                        int32_t *first) {
    size_t places = 4;
    while (places < 2 * (size_t)sketch->n_tasks) {
        places *= 2;
    }
    struct key *keys = malloc(((size_t)sketch->n_tasks + 1) * sizeof *keys);
    int32_t *table = malloc(places * sizeof *table);
    int32_t count = keys && table ? 0 : -SMS_SIM_NO_MEMORY;
    if (!count) {
        memset(table, -1, places * sizeof *table);
    }
    for (int32_t i = 0; i < sketch->n_tasks && count >= 0; i++) {
        const int32_t *task = sketch->tasks + (int64_t)i * SMS_SIM_TASK_COLUMNS;
        if (task[1] < 0 || task[1] >= kinds->n_kinds || (kinds->in_strips[task[1]] && (sketch->lhs_mr < 1 || sketch->m < 1))) {
            count = -SMS_SIM_BAD_PART;
            break;
        }
        class_of[i] = -1;
        if (task[1] == kinds->join) {
            continue;
        }
        keys[count] = key_of(sketch, kinds, task);
        size_t place = hash(&keys[count]) & (places - 1);
        while (table[place] >= 0 && memcmp(&keys[table[place]], &keys[count], sizeof *keys) != 0) {
            place = (place + 1) & (places - 1);
        }
        if (table[place] < 0) {
            first[count] = i;
            table[place] = count++;
        }
        class_of[i] = table[place];
    }
    free(keys);
    free(table);
    return count;
}

static int is_good(const struct sms_sim_sketch *sketch) {
    int32_t n = sketch->n_tasks;
    return are_begins(sketch->before_begin, n) && are_begins(sketch->queue_begin, sketch->n_workers) &&
           are_begins(sketch->pool_begin, sketch->n_pools) &&
           all_within(sketch->before, sketch->before_begin[n], 0, n) &&
           all_within(sketch->queue, sketch->queue_begin[sketch->n_workers], -sketch->n_pools, n) &&
           all_within(sketch->pool_tasks, sketch->pool_begin[sketch->n_pools], 0, n);
}

int32_t sms_sim_classes(const struct sms_sim_sketch *sketch, const struct sms_sim_kinds *kinds, int32_t columns,
                        const int32_t *column_of, int32_t *class_of, int32_t *first, uint8_t *reached) {
    if (!is_good(sketch)) {
        return -SMS_SIM_BAD_PART;
    }
    int32_t count = numbered(sketch, kinds, class_of, first);
    for (int32_t worker = 0; worker < sketch->n_workers && count > 0; worker++) {
        for (int32_t entry = sketch->queue_begin[worker]; entry < sketch->queue_begin[worker + 1]; entry++) {
            reach(sketch, sketch->queue[entry], columns, column_of[worker], class_of, reached);
        }
    }
    return count;
}
