"""The connections of a driver that nobody uses just now, and round trips over them."""

cimport cython

from msm_fast._core.wire cimport Batch
from msm_fast.drivers.exchange cimport MOST_AT_ONCE, PlainConnection, are_silent, write_and_read

__all__ = ["IdleConnections"]


@cython.final
cdef class IdleConnections:
    """Connections that nobody uses just now, by node; and round trips over them.

    nodes: their ids. most: how many connections a node keeps. lives: the NodeLives of the driver.
    Thread-safety: each call is whole, since it lets no other thread in between, but for the wait of `exchange`, in
        which the connections are nobody else's.
    """

    cdef dict _by_node      # replaced when the nodes are, so that who took from it knows
    cdef Py_ssize_t _most
    cdef object _lives

    def __init__(self, nodes, Py_ssize_t most, lives):
        self._by_node = {node: [] for node in nodes}
        self._most = most
        self._lives = lives

    def pop(self, node):
        """Take one of the node's connections, or return None."""
        cdef list stack = self._by_node.get(node)
        return stack.pop() if stack else None

    def put(self, node, PlainConnection connection not None):
        """Keep a connection; return False if it is one too many, or of a node that is not there."""
        cdef list stack = self._by_node.get(node)
        if stack is None or len(stack) >= self._most:
            return False
        stack.append(connection)
        return True

    def take_all(self, node):
        """Take all connections of a node."""
        cdef list stack = self._by_node.get(node)
        if stack is None:
            return []
        taken = stack.copy()
        stack.clear()
        return taken

    def change_nodes(self, nodes, kept):
        """Have these nodes from now on, with the connections of those that are kept; return those of all others."""
        cdef dict before = self._by_node
        self._by_node = {node: before[node] if node in kept else [] for node in nodes}
        return [connection for node, stack in before.items() if node not in kept for connection in stack]

    def exchange(self, batches, double until_s):
        """Write every batch, then wait for every reply.

        batches: of which two may be for one node. until_s: of time.monotonic().
        Returns: the outcomes, a list of Replies, and None. Where some did not come as they should: those outcomes are
            None, and beside the list are the connections, to go on with `connection.finish`. None and None where a
            connection is missing, or none for this, or has been closed, or has said something: nothing was written.
        Raises:  what a signal's handler raises; the connections are closed then.
        """
        cdef dict by_node = self._by_node
        cdef list taken = self._take(batches)
        cdef list outcomes
        cdef Py_ssize_t i
        cdef object turn
        if taken is None:
            return None, None
        turn = self._lives.turn
        try:
            outcomes = write_and_read(taken, batches, until_s)
        except BaseException:
            _close(taken)
            raise
        if None in outcomes:
            return outcomes, taken
        if by_node is self._by_node and self._lives.turn == turn:
            for i in range(len(taken)):
                if not self.put((<Batch>batches[i]).node, taken[i]):
                    _close([taken[i]])
        else:
            _close(taken)  # its node was changed, or is in another life
        return outcomes, None

    cdef list _take(self, batches):
        """Take a silent, plain connection for each batch; None, and take none, where one is missing."""
        cdef list taken = []
        cdef list stack
        cdef PlainConnection connection
        if len(batches) > MOST_AT_ONCE:
            return None
        for batch in batches:
            stack = self._by_node.get((<Batch?>batch).node)
            if not stack:
                break
            connection = stack[len(stack) - 1]
            if connection.fd < 0 or not (batch.life is None or batch.life == connection.life):
                break
            taken.append(stack.pop())
        else:
            if are_silent(taken):
                return taken
        for batch, connection in zip(batches, taken):
            (<list>self._by_node[batch.node]).append(connection)
        return None


cdef int _close(list connections) except -1:
    for connection in connections:
        connection.close()
    return 0
