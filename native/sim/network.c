#include "network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *array(int32_t count, size_t size) {
    return calloc((size_t)count + 1, size);
}

int network_start(struct network *network, const struct sms_sim_network *net, int32_t most_flows) {
    memset(network, 0, sizeof *network);
    network->net = net;
    network->wake_at = INFINITY;
    network->flows = array(most_flows, sizeof *network->flows);
    network->count = array(net->n_kinds, sizeof *network->count);
    network->rates = array(net->n_kinds, sizeof *network->rates);
    network->rising = array(net->n_kinds, sizeof *network->rising);
    network->demand = array(net->n_links, sizeof *network->demand);
    network->left = array(net->n_links, sizeof *network->left);
    network->waiting = array(net->n_links, sizeof *network->waiting);
    network->narrowest = array(net->n_links, sizeof *network->narrowest);
    network->granted = array(net->n_links, sizeof *network->granted);
    network->solved = array(net->n_links, sizeof *network->solved);
    return network->flows && network->count && network->rates && network->rising && network->demand && network->left &&
           network->waiting && network->narrowest && network->granted && network->solved;
}

void network_stop(struct network *network) {
    free(network->flows);
    free(network->count);
    free(network->rates);
    free(network->rising);
    free(network->demand);
    free(network->left);
    free(network->waiting);
    free(network->narrowest);
    free(network->granted);
    free(network->solved);
}

static int by_cap(const void *one, const void *other) {
    const struct rising *a = one, *b = other;
    if (a->cap != b->cap) {
        return a->cap < b->cap ? -1 : 1;
    }
    return (a->kind > b->kind) - (a->kind < b->kind);
}

/* Marks the links that cannot serve all caps at once, and lists the kinds that cross one of them, least cap first. */
static int32_t contested(struct network *network) {
    const struct sms_sim_network *net = network->net;
    int32_t n_rising = 0, any = 0;
    memset(network->demand, 0, (size_t)net->n_links * sizeof *network->demand);
    for (int32_t k = 0; k < net->n_kinds; k++) {
        const struct sms_sim_kind *kind = &net->kinds[k];
        for (int32_t i = 0; i < network->count[k]; i++) {
            for (int32_t p = kind->path_begin; p < kind->path_end; p++) {
                network->demand[net->paths[p]] += kind->cap;
            }
        }
    }
    for (int32_t link = 0; link < net->n_links; link++) {
        int is_full = network->demand[link] > net->capacity[link];
        network->left[link] = net->capacity[link];
        network->waiting[link] = is_full ? 0 : -1;
        any |= is_full;
    }
    for (int32_t k = 0; any && k < net->n_kinds; k++) {
        const struct sms_sim_kind *kind = &net->kinds[k];
        int32_t is_limited = 0;
        for (int32_t p = kind->path_begin; network->count[k] && p < kind->path_end; p++) {
            int32_t link = net->paths[p];
            if (network->waiting[link] >= 0) {
                network->waiting[link] += network->count[k];
                is_limited = 1;
            }
        }
        if (is_limited) {
            network->rising[n_rising++] = (struct rising){kind->cap, k};
        }
    }
    qsort(network->rising, (size_t)n_rising, sizeof *network->rising, by_cap);
    return n_rising;
}

/* Takes what the flows of a kind have got off its full links, flow by flow: the rounding depends on it. */
static void freeze(struct network *network, int32_t k) {
    const struct sms_sim_network *net = network->net;
    const struct sms_sim_kind *kind = &net->kinds[k];
    for (int32_t i = 0; i < network->count[k]; i++) {
        for (int32_t p = kind->path_begin; p < kind->path_end; p++) {
            int32_t link = net->paths[p];
            if (network->waiting[link] >= 0) {
                network->left[link] -= network->rates[k];
                network->waiting[link] -= 1;
            }
        }
    }
}

static int crosses_narrowest(const struct network *network, int32_t k) {
    const struct sms_sim_kind *kind = &network->net->kinds[k];
    for (int32_t p = kind->path_begin; p < kind->path_end; p++) {
        if (network->narrowest[network->net->paths[p]]) {
            return 1;
        }
    }
    return 0;
}

/* Max-min fair rates by progressive filling: see smesim/hwmodel/sharing.py. */
static void max_min(struct network *network) {
    const struct sms_sim_network *net = network->net;
    int32_t n_rising = contested(network);
    struct rising *rising = network->rising;
    while (n_rising) {
        double level = INFINITY;
        for (int32_t link = 0; link < net->n_links; link++) {
            network->narrowest[link] = 0;
            if (network->waiting[link] > 0) {
                double share = network->left[link] / network->waiting[link];
                level = share < level ? share : level;
            }
        }
        if (rising[0].cap <= level) {
            int32_t content = 0;
            while (content < n_rising && rising[content].cap <= level) {
                freeze(network, rising[content++].kind);
            }
            n_rising -= content;
            memmove(rising, rising + content, (size_t)n_rising * sizeof *rising);
            continue;
        }
        for (int32_t link = 0; link < net->n_links; link++) {
            network->narrowest[link] =
                network->waiting[link] > 0 && network->left[link] / network->waiting[link] == level;
        }
        int32_t kept = 0;
        for (int32_t i = 0; i < n_rising; i++) {
            if (crosses_narrowest(network, rising[i].kind)) {
                network->rates[rising[i].kind] = level;
                freeze(network, rising[i].kind);
            } else {
                rising[kept++] = rising[i];
            }
        }
        if (kept == n_rising) { /* only where a level is not a number */
            return;
        }
        n_rising = kept;
    }
}

void network_solve(struct network *network) {
    const struct sms_sim_network *net = network->net;
    memset(network->count, 0, (size_t)net->n_kinds * sizeof *network->count);
    for (int32_t i = 0; i < network->n_flows; i++) {
        network->count[network->flows[i].kind]++;
    }
    for (int32_t k = 0; k < net->n_kinds; k++) {
        network->rates[k] = net->contention ? net->kinds[k].cap : net->kinds[k].alone;
    }
    if (net->contention) {
        max_min(network);
    }
    memset(network->solved, 0, (size_t)net->n_links * sizeof *network->solved);
    for (int32_t k = 0; k < net->n_kinds; k++) {
        for (int32_t i = 0; i < network->count[k]; i++) {
            for (int32_t p = net->kinds[k].path_begin; p < net->kinds[k].path_end; p++) {
                network->solved[net->paths[p]] += network->rates[k];
            }
        }
    }
}

double network_rate(struct network *network, double now) {
    double next_end = INFINITY;
    for (int32_t i = 0; i < network->n_flows; i++) {
        struct flow *flow = &network->flows[i];
        double rate = network->rates[flow->kind];
        if (rate != flow->rate) {
            if (!(rate > 0.0)) {
                return -1.0;
            }
            double left = flow->remaining - flow->rate * (now - flow->since);
            flow->remaining = left > 0.0 ? left : 0.0;
            flow->since = now;
            flow->rate = rate;
            flow->end = now + nearbyint(flow->remaining / rate * TICKS_PER_S) * (1.0 / TICKS_PER_S);
        }
        next_end = flow->end < next_end ? flow->end : next_end;
    }
    return next_end;
}
