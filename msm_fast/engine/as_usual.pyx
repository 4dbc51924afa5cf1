# cython: nonecheck=True
"""The way that nearly every request goes: every node is up, and each answers what was expected of it.

A session is found in one round trip (`usual_loading`) and stored in another (`usual_saving`). Where something is not
as usual, the functions there say so by None; what follows then is up to the flows that know all cases, which go on from
the same answers. They wait for nothing, so a driver that asks them itself needs no flow for such a request.

Compiled, since each request comes here; all that it decides is decided in the flows too.
"""

from msm_fast._core.replies cimport Replies
from msm_fast._core.session_id cimport SessionId
from msm_fast._core.wire cimport Batch

from msm_fast.local_store import MemoryStore

__all__ = ["UsualWay", "all_answered"]


cpdef bint all_answered(dict healths, list batches, list outcomes, double now) except -1:
    """Whether every node answered its batch, in the life that it was in before; if so, note that, else nothing.

    healths: of all nodes, by id; now: monotonic seconds.
    """
    cdef Py_ssize_t i
    cdef bint are_well = True
    for i in range(len(batches)):
        health = healths.get((<Batch?>batches[i]).node)
        if health is None or type(outcomes[i]) is not Replies or (<Replies>outcomes[i]).life != health.life:
            return False
    for i in range(len(batches)):
        health = healths[(<Batch>batches[i]).node]
        health.heard(now)
        if health.failures_in_a_row:
            are_well = False
    return are_well


cdef class UsualWay:
    """What finding and storing sessions as usual have in common: which sessions, and what is true of their nodes."""

    def __init__(self, ctx):
        self._ctx, self._own = ctx, ctx.essentials
        self._health = ctx.health
        self._distribution = ctx.distribution
        self._records = ctx.records
        self._monotonic = ctx.clock.monotonic
        self._counts = ctx.counters

    cdef int _look_around(self) except -1:
        """Read settings and nodes again if they have been replaced."""
        topology, settings = self._ctx.topology, self._ctx.settings
        if topology is self._topology and settings is self._settings:
            return 0
        self._read(topology, settings)
        self._topology, self._settings = topology, settings
        return 0

    cdef int _read(self, topology, settings) except -1:
        """Take what is asked of them at each request."""
        self._nodes = topology.nodes
        self._encodes_node = topology.encodes_node
        self._is_draining = bool(topology.draining)
        self._replicas = settings.replicas
        return 0

    cdef str _home_of(self, SessionId session_id):
        """Return the node that the id names, or None if it is none that is in use."""
        cdef str node = session_id.node_part()
        if node is None:
            if self._encodes_node:
                return None
            node = ""
        return node if node in self._nodes else None

    cdef bint _may_be_kept_here(self) except -1:
        local = self._ctx.local
        return type(local) is not MemoryStore or len(local.records) > 0 or len(local.ended) > 0
