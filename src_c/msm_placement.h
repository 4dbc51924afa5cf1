/* Rendezvous ranking of nodes for one key digest.
 *
 * Every node has a score that depends on the key and on that node alone, and the highest score ranks first. So
 * taking a node away moves only the keys that it ranked first for. Equal scores rank by position: callers keep
 * the nodes in a canonical order.
 *
 * Seeds and digests come from this process, not from outside: these functions have no failure to report.
 */
#ifndef MSM_PLACEMENT_H
#define MSM_PLACEMENT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t score;
    size_t position; /* in the caller's arrays */
} msm_placement_rank_t;

/* Position of the node that ranks first. n is at least 1; weights NULL: all weigh the same. */
size_t msm_placement_first(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n);

/* Rank the nodes. ranks has room for n; afterwards its last `count` elements, read from the end, are the first
 * `count` nodes by rank. count is at most n. */
void msm_placement_rank(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n, size_t count,
                        msm_placement_rank_t *ranks);

#endif
