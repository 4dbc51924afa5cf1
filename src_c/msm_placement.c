#include "msm_placement.h"

#include <math.h>
#include <string.h>

/* Ranks must not depend on the compiler. GCC contracts a*b+c only outside -std=c11; clang needs to be told. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* A bijection of 64 bits in which every input bit reaches every output bit.
 * Source: D. Stafford, "Better bit mixing", variant 13 (the finalizer of SplitMix64). */
static inline uint64_t mix(uint64_t digest, uint64_t seed)
{
    uint64_t x = digest ^ seed;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* -ln(u) for 0 < u < 1, from additions, multiplications and divisions only: these are exact to the last bit on
 * every IEEE 754 machine, and log() of the C library is not.
 *
 * u = m * 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.1716, so the
 * series is below 2^-54 of its first term after eleven. */
static double minus_log(double u)
{
    static const double ln2 = 0.69314718055994530942;
    int exponent;
    double m = frexp(u, &exponent);
    if (m < 0.70710678118654752440) {
        m *= 2.0;
        exponent -= 1;
    }
    const double s = (m - 1.0) / (m + 1.0);
    const double square = s * s;
    double sum = 0.0;
    for (int k = 21; k >= 1; k -= 2) {
        sum = sum * square + 1.0 / (double)k;
    }
    return -((double)exponent * ln2 + 2.0 * s * sum);
}

/* weight / -ln(u), as the integer that orders as the double does: its bits, for it is never negative.
 * u is the mix's top 52 bits and a half, so never 0 or 1. */
static uint64_t weighted_score(uint64_t mixed, double weight)
{
    const double u = ((double)(mixed >> 12) + 0.5) * 0x1p-52;
    const double score = weight / minus_log(u);
    uint64_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits;
}

static inline uint64_t score_of(uint64_t digest, const uint64_t *seeds, const double *weights, size_t i)
{
    const uint64_t mixed = mix(digest, seeds[i]);
    return weights == NULL ? mixed : weighted_score(mixed, weights[i]);
}

/* Inlined once for each kind of score: so neither loop asks which it is. */
static inline size_t first(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n)
{
    size_t best = 0;
    uint64_t best_score = score_of(digest, seeds, weights, 0);
#pragma GCC unroll 4
    for (size_t i = 1; i < n; i++) {
        const uint64_t score = score_of(digest, seeds, weights, i);
        /* Two conditional moves, no branch: which node wins is as good as random, and a wrong guess costs more. */
        const int is_better = score > best_score;
        best = is_better ? i : best;
        best_score = is_better ? score : best_score;
    }
    return best;
}

size_t msm_placement_first(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n)
{
    return weights == NULL ? first(digest, seeds, NULL, n) : first(digest, seeds, weights, n);
}

static inline int ranks_before(const msm_placement_rank_t *a, const msm_placement_rank_t *b)
{
    return a->score > b->score || (a->score == b->score && a->position < b->position);
}

static void sift_down(msm_placement_rank_t *heap, size_t n, size_t parent)
{
    const msm_placement_rank_t moving = heap[parent];
    for (size_t child; (child = 2 * parent + 1) < n; parent = child) {
        if (child + 1 < n && ranks_before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!ranks_before(&heap[child], &moving)) {
            break;
        }
        heap[parent] = heap[child];
    }
    heap[parent] = moving;
}

/* A heap, not a sort: a backup site is rank 2 of perhaps many, and the C library's qsort may allocate. */
void msm_placement_rank(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n, size_t count,
                        msm_placement_rank_t *ranks)
{
    for (size_t i = 0; i < n; i++) {
        ranks[i] = (msm_placement_rank_t){score_of(digest, seeds, weights, i), i};
    }
    for (size_t i = n / 2; i-- > 0;) {
        sift_down(ranks, n, i);
    }
    for (size_t end = n; end > n - count; end--) {
        const msm_placement_rank_t first = ranks[0];
        ranks[0] = ranks[end - 1];
        ranks[end - 1] = first;
        sift_down(ranks, end - 1, 0);
    }
}
