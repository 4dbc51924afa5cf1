"""Which node keeps a key: weighted rendezvous (highest random weight) hashing."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_Index
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.stdint cimport uint64_t

from collections.abc import Mapping
from math import frexp, isfinite, ldexp

from xxhash import xxh3_64_intdigest

from msm_fast.errors import ConfigurationError

cdef extern from "msm_placement.h" nogil:
    ctypedef struct msm_placement_rank_t:
        uint64_t score
        size_t position

    size_t msm_placement_first(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n) noexcept
    void msm_placement_rank(uint64_t digest, const uint64_t *seeds, const double *weights, size_t n, size_t count,
                            msm_placement_rank_t *ranks) noexcept

# Ranks of up to this many nodes are made on the stack.
cdef enum:
    STACK_RANKS = 64

cdef object _digest_of = xxh3_64_intdigest


cdef inline uint64_t _digest(object key) except? 0:
    if isinstance(key, str):
        key = PyUnicode_AsUTF8String(key)
    elif not isinstance(key, bytes):
        raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
    return <uint64_t>_digest_of(key)


@cython.final
cdef class RendezvousHash:
    """Rank nodes for keys by weighted rendezvous hashing.

    nodes: node ids, all of one weight, or a mapping of node id to weight (relative; finite and above 0). The
        order in which they are given does not matter.
    Raises:  ConfigurationError for no nodes, an id that is empty, repeated or no text, or a weight out of range.
    Source:  Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; weights after
        Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.
    Thread-safety: immutable; build a new one and swap it.
    """

    # Nodes stand in order of their ids, so that of two equal scores the lower id ranks first.
    cdef tuple _nodes
    cdef uint64_t *_seeds
    cdef double *_weights  # NULL: all the same
    cdef size_t _n

    def __cinit__(self, nodes):
        cdef dict weights = _checked_weights(nodes)
        cdef size_t i
        self._nodes = tuple(sorted(weights))
        self._n = <size_t>len(self._nodes)
        self._seeds = <uint64_t *>PyMem_Malloc(self._n * sizeof(uint64_t))
        if self._seeds is NULL:
            raise MemoryError
        for i in range(self._n):
            self._seeds[i] = _digest(self._nodes[i])
        if len(set(weights.values())) == 1:
            return
        self._weights = <double *>PyMem_Malloc(self._n * sizeof(double))
        if self._weights is NULL:
            raise MemoryError
        # Only ratios count. Scaling by a power of two is exact, and keeps any score from overflowing.
        scale = -max(frexp(weight)[1] for weight in weights.values())
        for i in range(self._n):
            self._weights[i] = ldexp(weights[self._nodes[i]], scale)

    def __dealloc__(self):
        PyMem_Free(self._seeds)
        PyMem_Free(self._weights)

    @property
    def nodes(self):
        """Return the node ids, sorted."""
        return self._nodes

    def __len__(self):
        return <Py_ssize_t>self._n

    def node_for(self, key):
        """Return the id of the node that ranks first for key.

        key: str (hashed as UTF-8) or bytes, of any length.
        Raises:  TypeError for a key of another type; UnicodeEncodeError for a lone surrogate.
        Cost:    one XXH3-64 of the key and one 64-bit mix per node (weights: and one logarithm); no allocation.
        """
        return self._nodes[<Py_ssize_t>msm_placement_first(_digest(key), self._seeds, self._weights, self._n)]

    def nodes_for(self, keys):
        """Return the id of the first-ranked node for each of keys, in their order.

        keys: an iterable of str or bytes.
        Raises:  as node_for.
        Cost:    as node_for for each key; one pass.
        """
        cdef list found = []
        for key in keys:
            found.append(
                self._nodes[<Py_ssize_t>msm_placement_first(_digest(key), self._seeds, self._weights, self._n)]
            )
        return found

    def ranked(self, key, count=None):
        """Return the ids of the first count nodes for key, best first.

        key: as node_for, which returns the first of them.
        count: how many, 0 or more; None, or more than there are: all.
        Raises:  as node_for; ValueError for a negative count.
        Cost:    as node_for, and a heap selection: O(n + count log n).
        """
        cdef size_t wanted = self._n
        cdef msm_placement_rank_t[STACK_RANKS] on_stack
        cdef msm_placement_rank_t *ranks = on_stack
        cdef uint64_t digest = _digest(key)
        cdef size_t i
        if count is not None:
            count = PyNumber_Index(count)
            if count < 0:
                raise ValueError(f"count={count!r}: 0 or more, or None for all")
            wanted = min(count, self._n)
        if self._n > STACK_RANKS:
            ranks = <msm_placement_rank_t *>PyMem_Malloc(self._n * sizeof(msm_placement_rank_t))
            if ranks is NULL:
                raise MemoryError
        try:
            msm_placement_rank(digest, self._seeds, self._weights, self._n, wanted, ranks)
            return [self._nodes[<Py_ssize_t>ranks[self._n - 1 - i].position] for i in range(wanted)]
        finally:
            if ranks is not on_stack:
                PyMem_Free(ranks)


cdef dict _checked_weights(object nodes):
    """Return {node id: weight} of what the constructor was given."""
    cdef dict weights = {}
    if isinstance(nodes, (str, bytes)):
        raise ConfigurationError("nodes", nodes, "an iterable of node ids, or a mapping of node id to weight")
    has_weights = isinstance(nodes, Mapping)
    for node in nodes:
        text = str.__str__(node) if isinstance(node, str) else ""  # of a subclass, what is compiled takes none
        if not text or not _is_utf8(text):
            raise ConfigurationError("nodes", node, "a node id is text of at least one character")
        if text in weights:
            raise ConfigurationError("nodes", node, "each node id once")
        weights[text] = _checked_weight(text, nodes[node]) if has_weights else 1.0
    if not weights:
        raise ConfigurationError("nodes", nodes, "at least one node")
    return weights


cdef object _checked_weight(str node, object weight):
    try:
        value = float(weight)
    except (TypeError, ValueError, OverflowError):
        value = 0.0
    if not isfinite(value) or value <= 0.0:
        raise ConfigurationError(f"weight of node {node}", weight, "a finite number above 0")
    return value


cdef bint _is_utf8(str text) except -1:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
