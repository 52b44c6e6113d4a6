#define _GNU_SOURCE
#include "wait.h"

#include <sched.h>
#include <time.h>

#include "smesim/runtime.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

int64_t sms_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Sleeps until the gate is opened, or for at most limit_ns (0: no limit). */
static void sleep_while(struct sms_gate *gate, uint32_t epoch, int64_t limit_ns) {
#if defined(__linux__)
    struct timespec limit = {limit_ns / 1000000000, limit_ns % 1000000000};
    syscall(SYS_futex, &gate->epoch, FUTEX_WAIT_PRIVATE, epoch, limit_ns ? &limit : NULL, NULL, 0);
#else
    struct timespec limit = {0, 50000}; /* no futex here: look again every 50 us */
    (void)gate, (void)epoch, (void)limit_ns;
    nanosleep(&limit, NULL);
#endif
}

bool sms_gate_wait(struct sms_gate *gate, bool (*ready)(const void *), const void *context, int64_t timeout_ns) {
    if (ready(context))
        return true;
    int64_t begin = sms_now_ns(), now = begin;
    do {
        for (int i = 0; i < 32; i++) {
            if (ready(context))
                return true;
            sms_pause();
        }
        now = sms_now_ns();
    } while (now - begin < SMS_SPIN_NS);
    while (now - begin < SMS_YIELD_NS) {
        sched_yield();
        if (ready(context))
            return true;
        now = sms_now_ns();
    }

    while (!timeout_ns || now - begin < timeout_ns) {
        uint32_t epoch = __atomic_load_n(&gate->epoch, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&gate->sleepers, 1, __ATOMIC_SEQ_CST);
        bool is_ready = ready(context); /* after the sleeper is counted, so that no opener can miss it */
        if (!is_ready)
            sleep_while(gate, epoch, timeout_ns ? timeout_ns - (now - begin) : 0);
        __atomic_sub_fetch(&gate->sleepers, 1, __ATOMIC_SEQ_CST);
        if (is_ready || ready(context))
            return true;
        now = sms_now_ns();
    }
    return ready(context);
}

void sms_gate_open(struct sms_gate *gate) {
    if (__atomic_load_n(&gate->sleepers, __ATOMIC_SEQ_CST) == 0)
        return;
    __atomic_add_fetch(&gate->epoch, 1, __ATOMIC_SEQ_CST);
#if defined(__linux__)
    syscall(SYS_futex, &gate->epoch, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#endif
}
