"""The near cache on an OrderedDict, oldest first."""

from collections import OrderedDict
from math import inf


class NearCache:
    def __init__(self, max_entries, max_bytes=None, ttl=None, clock=None):
        self.max_entries = max_entries
        self.max_bytes = inf if max_bytes is None else max_bytes
        self.ttl = inf if ttl is None else ttl
        self.clock = clock
        self.entries = OrderedDict()  # key: (value, size, deadline)
        self.hits = self.misses = self.evictions = 0

    @property
    def nbytes(self):
        return sum(size for _, size, _ in self.entries.values())

    def __len__(self):
        return len(self.entries)

    def __contains__(self, key):
        if key in self.entries and self.entries[key][2] <= self.clock():
            del self.entries[key]
        return key in self.entries

    def get(self, key, default=None):
        if key not in self:
            self.misses += 1
            return default
        self.hits += 1
        self.entries.move_to_end(key)
        return self.entries[key][0]

    def put(self, key, value, size=0, ttl=None):
        life = self.ttl if ttl is None else ttl
        if size > self.max_bytes or life <= 0:
            self.pop(key)
            return
        self.entries[key] = (value, size, self.clock() + life)
        self.entries.move_to_end(key)
        while len(self) > self.max_entries or self.nbytes > self.max_bytes:
            self.entries.popitem(last=False)
            self.evictions += 1

    def pop(self, key, default=None):
        return self.entries.pop(key)[0] if key in self else default

    def clear(self):
        self.entries.clear()
