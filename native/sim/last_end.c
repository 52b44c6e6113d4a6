#include <math.h>
#include <stdlib.h>

#include "engine.h"

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

int sms_sim_last_end(const struct sms_sim_part *part, const struct sms_sim_machine *machine, double *last_end_s) {
    enum { TIMES = 6, COUNTS = 2, COMINGS = 2 };
    size_t n_tasks = (size_t)part->n_tasks, n_workers = (size_t)part->n_workers;
    double *times = malloc((TIMES * n_tasks + 1) * sizeof *times);
    int32_t *counts = malloc((COUNTS * n_tasks + COMINGS * n_workers + 1) * sizeof *counts);
    int status = SMS_SIM_NO_MEMORY;
    *last_end_s = NAN;
    if (times && counts) {
        int32_t *comings = counts + COUNTS * n_tasks;
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
        for (int32_t worker = 0; worker < part->n_workers; worker++) {
            comings[worker] = worker;
        }
        status = sms_sim_run(part, machine, comings, part->n_workers, &result);
        if (status == SMS_SIM_OK) {
            *last_end_s = last_of(part, result.end_s);
        }
        sms_sim_release(&result);
    }
    free(times);
    free(counts);
    return status;
}
