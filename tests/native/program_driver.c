/* Runs a program that smesim lowered, with the portable kernels on a team of any size, so that a sanitizer can watch
 * what the tasks of a plan do to memory, their own and each other's.
 *
 *   program_driver PROGRAM RUNS
 *
 * PROGRAM holds the arrays of the program and the contents of its buffers, each behind its size in bytes. After RUNS
 * runs, each from the same contents, what the last left in the buffers is written to standard output. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smesim/runtime.h"

extern const struct sms_kernels sms_kernels_portable;
extern const struct sms_lowp sms_lowp_portable;
extern const struct sms_blocks sms_blocks_portable;

enum { MOST_WORKERS = 16, MOST_BUFFERS = 256 };

struct block {
    int64_t size;
    void *data;
};

static struct block next_block(FILE *file) {
    struct block block = {0};
    if (fread(&block.size, sizeof block.size, 1, file) != 1)
        exit(2);
    block.data = aligned_alloc(64, (size_t)(block.size + 64) / 64 * 64);
    if (!block.data || fread(block.data, 1, (size_t)block.size, file) != (size_t)block.size)
        exit(2);
    return block;
}

int main(int argc, char **argv) {
    FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    const struct block ops = next_block(file), tasks = next_block(file), successors = next_block(file);
    const struct block workers = next_block(file), entries = next_block(file), pools = next_block(file);
    const struct block pool_tasks = next_block(file), facts = next_block(file);
    const int32_t n_buffers = (int32_t)(facts.size / (int64_t)sizeof(struct sms_buffer));
    const int32_t n_tasks = (int32_t)(tasks.size / (int64_t)sizeof(struct sms_task));
    const int32_t n_workers = (int32_t)(workers.size / (int64_t)sizeof(struct sms_worker));
    if (n_buffers > MOST_BUFFERS || n_workers > MOST_WORKERS)
        return 2;
    struct block given[MOST_BUFFERS];
    void *buffers[MOST_BUFFERS], *scratch[MOST_WORKERS];
    const struct sms_kernels *kernels[MOST_WORKERS];
    const struct sms_lowp *lowp[MOST_WORKERS];
    const struct sms_blocks *blocks[MOST_WORKERS];
    int32_t anywhere[MOST_WORKERS];
    for (int32_t i = 0; i < n_buffers; i++) {
        given[i] = next_block(file);
        buffers[i] = malloc((size_t)given[i].size);
    }
    const int64_t scratch_bytes = sms_scratch_bytes(&sms_kernels_portable, ops.data, tasks.data, n_tasks);
    for (int32_t i = 0; i < n_workers; i++) {
        scratch[i] = malloc((size_t)scratch_bytes);
        kernels[i] = &sms_kernels_portable;
        lowp[i] = &sms_lowp_portable;
        blocks[i] = &sms_blocks_portable;
        anywhere[i] = -1;
    }
    const size_t n = (size_t)n_tasks;
    struct sms_run run = {
        .ops = ops.data, .tasks = tasks.data, .n_tasks = n_tasks, .successors = successors.data,
        .workers = workers.data, .n_workers = n_workers, .entries = entries.data, .pools = pools.data,
        .n_pools = (int32_t)(pools.size / (int64_t)sizeof(struct sms_pool)), .pool_tasks = pool_tasks.data,
        .buffer_facts = facts.data, .buffers = buffers, .kernels = kernels, .lowp = lowp, .blocks = blocks,
        .scratch = scratch,
        .pending = calloc(n, sizeof(int32_t)), .cursors = calloc((size_t)pools.size + 1, sizeof(int32_t)),
        .start_ns = calloc(n, sizeof(int64_t)), .end_ns = calloc(n, sizeof(int64_t)),
        .ran_on = calloc(n, sizeof(int32_t)),
    };
    struct sms_team *team = sms_team_create(n_workers, anywhere);
    for (int i = 0; i < atoi(argv[2]); i++) {
        for (int32_t b = 0; b < n_buffers; b++)
            memcpy(buffers[b], given[b].data, (size_t)given[b].size);
        sms_team_start(team, &run);
        int status;
        while ((status = sms_team_wait(team, 5)) == SMS_RUNNING)
            ;
        if (status != SMS_DONE)
            return 3;
    }
    sms_team_destroy(team);
    for (int32_t b = 0; b < n_buffers; b++)
        fwrite(buffers[b], 1, (size_t)given[b].size, stdout);
    return 0;
}
