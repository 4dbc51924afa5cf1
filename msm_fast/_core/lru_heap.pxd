# The entries of a near cache in the order of their last use: a binary heap with lazy keys.
#
# An entry that is used gets the next stamp and stays where it is: a hit touches no other entry. The heap goes by the
# stamp that each entry had when it was last put in place; what comes to the top with a newer stamp is put in place once
# more, so the one that stays on top is the oldest of all.
#
# A heap is a list, which owns its entries. Whoever moves them may hold a lock: no Python code runs here, nothing dies.

from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

from msm_fast._core.near_cache cimport Entry

cdef extern from "Python.h":
    # Items of a list as they stand there, neither taken nor given back.
    PyObject *item_at "PyList_GET_ITEM"(list, Py_ssize_t i)
    void put_item "PyList_SET_ITEM"(list, Py_ssize_t i, PyObject *item)


cdef inline uint64_t stamp_at(list heap, Py_ssize_t slot) noexcept:
    return (<Entry>item_at(heap, slot)).placed


cdef inline void place(list heap, PyObject *entry, Py_ssize_t slot) noexcept:
    put_item(heap, slot, entry)
    (<Entry>entry).slot = slot


cdef inline void sink(list heap, PyObject *entry, Py_ssize_t slot) noexcept:
    """Put entry in place, at slot or below it."""
    cdef Py_ssize_t n = PyList_GET_SIZE(heap)
    cdef Py_ssize_t child = 2 * slot + 1
    while child < n:
        if child + 1 < n and stamp_at(heap, child + 1) < stamp_at(heap, child):
            child += 1
        if stamp_at(heap, child) > (<Entry>entry).placed:
            break
        place(heap, item_at(heap, child), slot)
        slot = child
        child = 2 * slot + 1
    place(heap, entry, slot)


cdef inline void rise(list heap, PyObject *entry, Py_ssize_t slot) noexcept:
    """Put entry in place, at slot or above it."""
    while slot and stamp_at(heap, (slot - 1) >> 1) > (<Entry>entry).placed:
        place(heap, item_at(heap, (slot - 1) >> 1), slot)
        slot = (slot - 1) >> 1
    place(heap, entry, slot)


cdef inline bint push(list heap, Entry entry, uint64_t stamp) noexcept:
    """Add an entry whose stamp is the newest of all: so the end is its place. False: no memory, nothing changed."""
    entry.slot = PyList_GET_SIZE(heap)
    try:
        heap.append(entry)
    except MemoryError:
        return False
    entry.used = entry.placed = stamp
    return True


cdef inline PyObject *oldest(list heap) noexcept:
    """Return the entry whose last use is longest ago; there is one."""
    cdef PyObject *top = item_at(heap, 0)
    while (<Entry>top).placed != (<Entry>top).used:
        (<Entry>top).placed = (<Entry>top).used
        sink(heap, top, 0)
        top = item_at(heap, 0)
    return top


cdef inline void take_out(list heap, Entry entry) noexcept:
    """Take entry out of the heap, whose reference becomes the caller's."""
    cdef Py_ssize_t slot = entry.slot
    cdef Py_ssize_t n = PyList_GET_SIZE(heap) - 1
    cdef PyObject *last = item_at(heap, n)
    if slot < n:
        place(heap, last, slot)
        put_item(heap, n, <PyObject *>entry)
    Py_INCREF(entry)
    heap.pop()
    if slot < n:
        rise(heap, last, slot)
        sink(heap, last, (<Entry>last).slot)
