"""The near cache: an exact LRU with budgets for entries and bytes, and a deadline for each entry."""

cimport cython
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.math cimport INFINITY, isnan
from libc.stdint cimport SIZE_MAX, uint64_t
from libc.string cimport memset

from msm_fast._core.lru_heap cimport item_at, oldest, push, take_out

import time

from msm_fast.errors import ConfigurationError

__all__ = ["NearCache"]

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    typedef PyMutex msm_lock_t;
    #define msm_lock(lock) PyMutex_Lock(lock)
    #define msm_unlock(lock) PyMutex_Unlock(lock)
    #else
    typedef char msm_lock_t;
    #define msm_lock(lock) ((void)(lock))
    #define msm_unlock(lock) ((void)(lock))
    #endif
    """
    ctypedef struct msm_lock_t:
        pass
    void msm_lock(msm_lock_t *lock) noexcept
    void msm_unlock(msm_lock_t *lock) noexcept

# The lock guards links and numbers, nothing else. While it is held no Python code can run: keys are hashed and
# compared, the clock is read, objects are made and objects die only without it. So nothing that a key, a value or
# a clock does, not even calling this cache, can deadlock; and where there is a GIL, that is the lock.
#
# Each entry is an object of its own, owned by the list _owned alone (which is how the garbage collector finds it),
# and linked by a borrowed pointer in the chain of its bucket. _owned is a heap in the order of use: `lru_heap`.

cdef enum:
    FIRST_BUCKET_BITS = 3


@cython.final
@cython.freelist(64)
cdef class Entry:
    pass


cdef inline int _is_same_key(object a, object b) noexcept:
    """Return 1 or 0 where C alone can tell, -1 where only the keys' own __eq__ can."""
    if a is b:
        return 1
    if type(a) is str and type(b) is str:
        return <str>a == <str>b
    if type(a) is bytes and type(b) is bytes:
        return <bytes>a == <bytes>b
    return -1


cdef void _bury(PyObject *dead) noexcept:
    """Let unlinked entries die. Not under the lock: what they hold may call back."""
    cdef PyObject *following
    while dead is not NULL:
        following = (<Entry>dead).chain
        Py_DECREF(<Entry>dead)
        dead = following


@cython.final
@cython.no_gc_clear
cdef class NearCache:
    """Keep the most recently used values, within a number of entries and of bytes.

    max_entries: at least 1.
    max_bytes: what the sizes given to put() may add up to, at least 1; None: no limit.
    ttl: how long an entry lives, in seconds, above 0; None: until it is evicted. Each put() may say otherwise.
    clock: returns seconds and never runs backwards.

    Keys are hashable and compared as those of a dict. A value that has expired is no longer found; it goes when
    it is met or evicted, and counts in len() and nbytes until then.
    Raises:  ConfigurationError.
    Thread-safety: every method; no Python code runs under its lock, so keys and values may use the cache from
        __eq__, __hash__ and __del__.
    """

    cdef object __weakref__
    cdef msm_lock_t _lock
    cdef list _owned
    cdef PyObject **_buckets
    cdef int _bucket_bits
    cdef uint64_t _stamp        # the newest
    cdef bint _has_links        # from buckets to entries
    cdef size_t _epoch          # grows whenever an entry is linked or unlinked
    cdef size_t _max_entries
    cdef size_t _max_bytes
    cdef size_t _nbytes
    cdef double _ttl
    cdef object _clock
    cdef bint _has_deadlines    # once an entry with a deadline was put; until then the clock is not asked
    cdef size_t _hits
    cdef size_t _misses
    cdef size_t _evictions

    def __cinit__(self, max_entries, max_bytes=None, ttl=None, clock=time.monotonic):
        self._max_entries = _checked_budget("max_entries", max_entries)
        self._max_bytes = SIZE_MAX if max_bytes is None else _checked_budget("max_bytes", max_bytes)
        self._ttl = INFINITY if ttl is None else _checked_ttl(ttl)
        if not callable(clock):
            raise ConfigurationError("clock", clock, "a function that returns seconds")
        self._clock = clock
        self._owned = []
        self._bucket_bits = FIRST_BUCKET_BITS
        self._buckets = <PyObject **>PyMem_RawCalloc(<size_t>1 << FIRST_BUCKET_BITS, sizeof(PyObject *))
        if self._buckets is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self._buckets)

    def get(self, key, default=None):
        """Return the value of key and make it the most recently used; default if there is none or it expired.

        Raises:  what the key's __hash__ and __eq__ raise.
        Cost:    one hash look-up; the clock is read only if some entry was ever given a deadline.
        """
        cdef Py_hash_t key_hash = hash(key)
        cdef double now = self._now()
        cdef PyObject *dead = NULL
        self._enter()
        cdef PyObject *found = self._find(key, key_hash)
        if found is not NULL and (<Entry>found).deadline > now:
            self._hits += 1
            self._use(<Entry>found)
            value = (<Entry>found).value
            msm_unlock(&self._lock)
            return value
        self._misses += 1
        if found is not NULL:
            self._unlink(found, &dead)
        msm_unlock(&self._lock)
        _bury(dead)
        return default

    def put(self, key, value, size=0, ttl=None):
        """Keep value under key, in place of an older one, as the most recently used.

        size: what it counts for in max_bytes, 0 or more. A value over max_bytes is not kept.
        ttl: seconds; None: the cache's. A value whose time is over already (0 or less) is not kept.
        A value that is not kept still removes the older one: the cache never returns what was replaced.
        Raises:  ValueError for a negative size or a ttl of nan; what the key's __hash__ and __eq__ raise.
        Cost:    one hash look-up; to evict, O(log n) for each entry used since it was last put in order, once.
        """
        cdef Py_hash_t key_hash = hash(key)
        cdef double life_s = self._ttl if ttl is None else ttl
        cdef PyObject *dead = NULL
        cdef PyObject *found
        cdef Entry entry
        size = PyNumber_Index(size)
        if size < 0:
            raise ValueError(f"size={size!r}: 0 or more bytes")
        cdef size_t counted = size
        if isnan(life_s):
            raise ValueError(f"ttl={ttl!r}: a number of seconds, or None")
        if life_s <= 0 or counted > self._max_bytes:
            self.pop(key)
            return
        entry = Entry.__new__(Entry)
        entry.key = key
        entry.value = value
        entry.hash = key_hash
        entry.size = counted
        entry.deadline = INFINITY
        if life_s != INFINITY:
            self._has_deadlines = True
            entry.deadline = self._now() + life_s
        self._enter()
        found = self._find(key, key_hash)
        if found is not NULL:
            self._exchange(<Entry>found, entry)
            self._use(<Entry>found)
        elif not self._link(entry):
            msm_unlock(&self._lock)
            raise MemoryError
        while <size_t>PyList_GET_SIZE(self._owned) > self._max_entries or self._nbytes > self._max_bytes:
            self._evictions += 1
            self._unlink(oldest(self._owned), &dead)
        msm_unlock(&self._lock)
        _bury(dead)

    def pop(self, key, default=None):
        """Remove key and return its value; default if there is none or it expired. Counts neither hit nor miss.

        Raises:  what the key's __hash__ and __eq__ raise.
        """
        cdef Py_hash_t key_hash = hash(key)
        cdef double now = self._now()
        cdef PyObject *dead = NULL
        self._enter()
        cdef PyObject *found = self._find(key, key_hash)
        if found is not NULL:
            self._unlink(found, &dead)
        msm_unlock(&self._lock)
        if dead is not NULL and (<Entry>dead).deadline > now:
            default = (<Entry>dead).value
        _bury(dead)
        return default

    def clear(self):
        """Remove every entry. The counters go on."""
        cdef list replacement = []
        self._enter()
        self._owned, replacement = replacement, self._owned
        self._forget()
        msm_unlock(&self._lock)

    def keys(self):
        """Return a list of the keys whose values have not expired, in no particular order."""
        cdef double now = self._now()
        cdef list entries = []
        cdef Py_ssize_t i
        cdef Py_ssize_t n = -1
        while n < 0:
            entries = [None] * len(self)  # not under the lock: making a list may start the garbage collector
            self._enter()
            if PyList_GET_SIZE(self._owned) <= PyList_GET_SIZE(entries):
                n = PyList_GET_SIZE(self._owned)
                for i in range(n):
                    entries[i] = self._owned[i]
            msm_unlock(&self._lock)
        return [(<Entry>entry).key for entry in entries[:n] if (<Entry>entry).deadline > now]

    def __contains__(self, key):
        cdef Py_hash_t key_hash = hash(key)
        cdef double now = self._now()
        cdef PyObject *dead = NULL
        self._enter()
        cdef PyObject *found = self._find(key, key_hash)
        cdef bint is_live = found is not NULL and (<Entry>found).deadline > now
        if found is not NULL and not is_live:
            self._unlink(found, &dead)
        msm_unlock(&self._lock)
        _bury(dead)
        return is_live

    def __len__(self):
        self._enter()
        cdef Py_ssize_t n = PyList_GET_SIZE(self._owned)
        msm_unlock(&self._lock)
        return n

    @property
    def nbytes(self):
        """Return what the sizes of the entries add up to."""
        return self._read(&self._nbytes)

    @property
    def hits(self):
        """Return how often get() found a value."""
        return self._read(&self._hits)

    @property
    def misses(self):
        """Return how often get() found none, or an expired one."""
        return self._read(&self._misses)

    @property
    def evictions(self):
        """Return how many entries had to go to keep within max_entries and max_bytes."""
        return self._read(&self._evictions)

    cdef size_t _read(self, const size_t *number) noexcept:
        self._enter()
        cdef size_t value = number[0]
        msm_unlock(&self._lock)
        return value

    cdef inline double _now(self) except? -1.0:
        return self._clock() if self._has_deadlines else -INFINITY

    cdef inline void _enter(self) noexcept:
        """Take the lock.

        An empty _owned beside a linked entry is the garbage collector's work: it breaks a cycle through this cache
        by clearing that list, and code that runs as the rest of the cycle dies must not follow the links.
        """
        msm_lock(&self._lock)
        if self._has_links and PyList_GET_SIZE(self._owned) == 0:
            self._forget()

    # What follows is called with the lock held.

    cdef void _forget(self) noexcept:
        """Unlink every entry; _owned no longer has them."""
        memset(self._buckets, 0, (<size_t>1 << self._bucket_bits) * sizeof(PyObject *))
        self._has_links = False
        self._nbytes = 0
        self._epoch += 1

    cdef inline PyObject **_bucket(self, Py_hash_t key_hash) noexcept:
        """Return the bucket of a hash: its top bits after a multiplication by 2^64 over the golden ratio, for
        the low bits of a Python hash may all be the same."""
        return &self._buckets[(<uint64_t>key_hash * <uint64_t>0x9E3779B97F4A7C15) >> (64 - self._bucket_bits)]

    cdef inline PyObject *_find(self, object key, Py_hash_t key_hash) except? NULL:
        """Return the entry of key, or NULL.

        The lock is given up while a key's own __eq__ runs, and is not held if that raises. If any entry came or
        went meanwhile the search starts again, as in a dict.
        """
        cdef PyObject *found = self._bucket(key_hash)[0]
        cdef size_t epoch
        cdef int is_same
        cdef object other
        while found is not NULL:
            if (<Entry>found).hash == key_hash:
                is_same = _is_same_key((<Entry>found).key, key)
                if is_same < 0:
                    epoch = self._epoch
                    other = (<Entry>found).key
                    msm_unlock(&self._lock)
                    is_same = bool(other == key)
                    other = None  # which may be the last of that key: not under the lock
                    self._enter()
                    if self._epoch != epoch:
                        found = self._bucket(key_hash)[0]
                        continue
                if is_same:
                    return found
            found = (<Entry>found).chain
        return NULL

    cdef bint _link(self, Entry entry) noexcept:
        """Add an entry as the newest. False: no memory, nothing changed."""
        self._stamp += 1
        if not push(self._owned, entry, self._stamp):
            return False
        if entry.slot >> (self._bucket_bits - 1):
            self._grow()
        cdef PyObject **bucket = self._bucket(entry.hash)
        entry.chain = bucket[0]
        bucket[0] = <PyObject *>entry
        self._has_links = True
        self._nbytes += entry.size
        self._epoch += 1
        return True

    cdef void _unlink(self, PyObject *found, PyObject **dead) noexcept:
        """Take an entry out, and put it before the dead, to be buried when the lock is released."""
        cdef Entry entry = <Entry>found
        cdef PyObject **at = self._bucket(entry.hash)
        while at[0] is not found:
            at = &(<Entry>at[0]).chain
        at[0] = entry.chain
        take_out(self._owned, entry)
        self._nbytes -= entry.size
        self._epoch += 1
        entry.chain = dead[0]
        dead[0] = found

    cdef void _exchange(self, Entry entry, Entry other) noexcept:
        """Give entry the value of other, and other the old value: it dies with other, not under the lock."""
        entry.value, other.value = other.value, entry.value
        self._nbytes += other.size - entry.size
        entry.size = other.size
        entry.deadline = other.deadline

    cdef void _grow(self) noexcept:
        """Double the buckets. Without the memory for it chains get longer, no more."""
        cdef int bits = self._bucket_bits + 1
        cdef PyObject **grown = <PyObject **>PyMem_RawCalloc(<size_t>1 << bits, sizeof(PyObject *))
        cdef PyObject **bucket
        cdef PyObject *entry
        cdef Py_ssize_t i
        if grown is NULL:
            return
        PyMem_RawFree(self._buckets)
        self._buckets = grown
        self._bucket_bits = bits
        for i in range(PyList_GET_SIZE(self._owned) - 1):  # the last one is only about to be linked
            entry = item_at(self._owned, i)
            bucket = self._bucket((<Entry>entry).hash)
            (<Entry>entry).chain = bucket[0]
            bucket[0] = entry

    cdef inline void _use(self, Entry entry) noexcept:
        """Make an entry the most recently used."""
        self._stamp += 1
        entry.used = self._stamp


cdef size_t _checked_budget(str setting, object value) except 0:
    try:
        number = PyNumber_Index(value)
    except TypeError:
        number = 0
    if not 0 < number < SIZE_MAX:
        raise ConfigurationError(setting, value, "an integer of at least 1")
    return number


cdef double _checked_ttl(object value) except 0.0:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not number > 0.0:
        raise ConfigurationError("ttl", value, "a number of seconds above 0, or None")
    return number
