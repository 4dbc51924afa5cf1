/* Ranks are a permutation in the order of the scores, of which any beginning can be had alone; without one node the
 * others keep their order; and the first of them is what the search for the first finds. */
#include <math.h>

#include "check.h"
#include "msm_placement.h"

enum { NODES_MAX = 40 };

typedef struct {
    size_t n;
    uint64_t seeds[NODES_MAX];
    double weights[NODES_MAX];
    const double *given; /* the weights, or NULL */
} cluster;

/* Weights as the caller gives them: finite, above 0, the largest below 1. */
static double drawn_weight(source *from)
{
    const double fraction = ((double)draw(from, 4) + 1.0) / 4294967297.0;
    return ldexp(fraction, -(int)(draw(from, 2) % 1022));
}

static void draw_cluster(source *from, cluster *nodes)
{
    nodes->n = 1 + draw(from, 1) % NODES_MAX;
    nodes->given = draw(from, 1) % 2 ? nodes->weights : NULL;
    for (size_t i = 0; i < nodes->n; i++) {
        /* Seeds that repeat make scores that are equal. */
        const uint64_t kind = draw(from, 1);
        nodes->seeds[i] = kind % 4 == 0 && i > 0 ? nodes->seeds[kind % i] : draw(from, 8);
        nodes->weights[i] = kind % 8 == 0 && i > 0 ? nodes->weights[kind % i] : drawn_weight(from);
    }
}

static void check_order(const msm_placement_rank_t *ranks, size_t n)
{
    int seen[NODES_MAX] = {0};
    for (size_t i = n; i-- > 0;) {
        CHECK(ranks[i].position < n && !seen[ranks[i].position]);
        seen[ranks[i].position] = 1;
        if (i + 1 < n)
            CHECK(ranks[i].score < ranks[i + 1].score ||
                  (ranks[i].score == ranks[i + 1].score && ranks[i].position > ranks[i + 1].position));
    }
}

/* The ranking in an array that ends where the nodes do. */
static msm_placement_rank_t *ranked(uint64_t digest, const cluster *nodes, size_t count)
{
    msm_placement_rank_t *ranks = malloc(nodes->n * sizeof *ranks);
    uint64_t *seeds = malloc(nodes->n * sizeof *seeds);
    double *weights = malloc(nodes->n * sizeof *weights);
    CHECK(ranks != NULL && seeds != NULL && weights != NULL);
    memcpy(seeds, nodes->seeds, nodes->n * sizeof *seeds);
    memcpy(weights, nodes->weights, nodes->n * sizeof *weights);
    msm_placement_rank(digest, seeds, nodes->given ? weights : NULL, nodes->n, count, ranks);
    const size_t best = msm_placement_first(digest, seeds, nodes->given ? weights : NULL, nodes->n);
    CHECK(best < nodes->n && (count == 0 || best == ranks[nodes->n - 1].position));
    free(seeds);
    free(weights);
    return ranks;
}

static void check_without(uint64_t digest, const cluster *all, size_t gone, const msm_placement_rank_t *ranks)
{
    cluster rest = *all;
    rest.given = all->given ? rest.weights : NULL;
    rest.n--;
    memmove(rest.seeds + gone, rest.seeds + gone + 1, (rest.n - gone) * sizeof rest.seeds[0]);
    memmove(rest.weights + gone, rest.weights + gone + 1, (rest.n - gone) * sizeof rest.weights[0]);
    msm_placement_rank_t *left = ranked(digest, &rest, rest.n);
    size_t at = rest.n;
    for (size_t i = all->n; i-- > 0;) {
        if (ranks[i].position == gone)
            continue;
        at--;
        CHECK(left[at].score == ranks[i].score);
        CHECK(left[at].position == ranks[i].position - (ranks[i].position > gone ? 1 : 0));
    }
    free(left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    source from = {data, size};
    cluster nodes = {0};
    const uint64_t digest = draw(&from, 8);
    const size_t gone = (size_t)draw(&from, 1);
    const size_t asked = (size_t)draw(&from, 1);
    draw_cluster(&from, &nodes);
    msm_placement_rank_t *ranks = ranked(digest, &nodes, nodes.n);
    check_order(ranks, nodes.n);

    const size_t count = asked % (nodes.n + 1);
    msm_placement_rank_t *some = ranked(digest, &nodes, count);
    for (size_t i = 0; i < count; i++)
        CHECK(some[nodes.n - 1 - i].position == ranks[nodes.n - 1 - i].position);
    free(some);

    if (nodes.n > 1)
        check_without(digest, &nodes, gone % nodes.n, ranks);
    free(ranks);
    return 0;
}
