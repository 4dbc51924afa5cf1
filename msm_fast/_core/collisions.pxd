# How many keys of a dict, or elements of a set, may share one hash.
#
# Python's hashes of numbers can be computed by anybody: a million bytes hold a hundred thousand numbers of one hash,
# and to put these into a dict takes half a minute, each time the value is read. So neither direction carries that.
# Numbers that mean something do not come near the limit.
#
# What is bounded is that, no more. Integers of 64 bits, each with a hash of its own, can be chosen so that a dict looks
# for them in the same places: 400 KB of them take four seconds. No count of hashes tells these from others.

cdef extern from *:
    long long small_int_of "PyLong_AsLongLongAndOverflow"(object number, int *overflow) except? -1

cdef enum:
    EQUAL_HASHES_MAX = 256


cdef inline bint is_crowded(dict counts, object key) except -1:
    """Count the hash of key; tell whether more than EQUAL_HASHES_MAX have it.

    counts: of this collection, empty at first.
    Text and bytes are not counted: their hashes differ from process to process. Nor are numbers that fit 64 bits: of
    these, few have the same.
    """
    cdef int overflow = 0
    kind = type(key)
    if kind is str or kind is bytes:
        return False
    if kind is int:
        small_int_of(key, &overflow)
        if overflow == 0:
            return False
    key_hash = hash(key)
    n_equal = counts.get(key_hash, 0) + 1
    counts[key_hash] = n_equal
    return n_equal > EQUAL_HASHES_MAX
