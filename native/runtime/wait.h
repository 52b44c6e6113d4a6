/* Waiting that is quick when the machine is ours and polite when it is not.
 *
 * A waiter spins for SPIN_NS (a hand-over between two running threads takes well under a microsecond), then offers its
 * core to whoever wants it between looks, for YIELD_NS (waking a sleeper takes some 50 us, as long as a short task), and
 * at last sleeps in the kernel. So a foreign process gets the core almost at once instead of racing a spinning thread. */
#ifndef SMESIM_WAIT_H
#define SMESIM_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* The serial parts of a decode step: a norm is some 5 us. */
#define SMS_SPIN_NS 20000
/* The wait for a neighbour's last tile: tiles take up to some 300 us. */
#define SMS_YIELD_NS 500000

struct sms_gate {
    uint32_t epoch;    /* changes with every wake-up call */
    int32_t sleepers;  /* threads that are asleep, or about to be */
};

static inline void sms_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns when ready(context) is true: at the latest `timeout_ns` after it was called (0: no limit). */
bool sms_gate_wait(struct sms_gate *gate, bool (*ready)(const void *), const void *context, int64_t timeout_ns);

/* To be called after whatever makes `ready` true; costs one load when nobody sleeps. */
void sms_gate_open(struct sms_gate *gate);

#endif
