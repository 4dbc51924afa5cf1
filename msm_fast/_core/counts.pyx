"""Running counts by name."""

__all__ = ["Counts"]


cdef class Counts:
    """Counts that start at 0.

    names: what is counted; nothing else can be.
    Thread-safety: each change is whole, since nothing in it lets another thread in between: names are exact texts and
        counts are numbers, which are hashed, compared and added without Python code.
    """

    def __init__(self, names):
        self._counts = {str(name): 0 for name in names}

    def add(self, str name not None, n=1):
        """Add n to the count name. Raises: KeyError."""
        self._counts[name] = self._counts[name] + n

    cdef int count(self, str name) except -1:
        """Add 1 to the count name."""
        self._counts[name] = self._counts[name] + 1
        return 0

    def by_name(self):
        """Return all counts as they stand."""
        return self._counts.copy()
