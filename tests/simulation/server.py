"""A memcached that is a dict: the meta commands that this library sends, byte for byte, under virtual time.

It follows memcached 1.6.18: CAS values count from 1 in each process and start again after a restart; times over 30
days are absolute; an expired item is gone, as early as can be. As 1.6.40 or newer it also answers mg with C as
doc/protocol.txt says.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.clock import VirtualClock

THIRTY_DAYS = 30 * 24 * 3600


@dataclass
class Item:
    value: bytes
    client_flags: int
    cas: int
    expires_at: float | None
    """By the server's count."""


class SimulatedServer:
    def __init__(self, clock: VirtualClock, version: tuple[int, int, int] = (1, 6, 18)) -> None:
        self.version = version
        self._clock = clock
        self._items: dict[bytes, Item] = {}
        self._last_cas = 0
        self.life = 1
        self.room: int | None = None
        """Bytes left for values; None: enough. A write that finds no room beside what is there deletes that, whatever
        it was asked for: an add, and one with another CAS value, too."""
        self.early_s = 2
        """Items are dated by a count of seconds that may be a second old, and that leaps by two when it is late."""

    @property
    def compares(self) -> bool:
        """Whether mg with C leaves out a value whose CAS is that; an older server passes over the flag."""
        return self.version >= (1, 6, 40)

    def restart(self) -> None:
        """Lose everything, as after SIGKILL; CAS values repeat."""
        self.life += 1
        self._items.clear()
        self._last_cas = 0

    def flush(self) -> None:
        self._items.clear()

    def evict(self, key: bytes) -> None:
        self._drop(key)

    def peek(self, key: bytes) -> Item | None:
        item = self._items.get(key)
        if item is not None and item.expires_at is not None and item.expires_at - self.early_s <= self._clock.wall():
            self._drop(key)
            return None
        return item

    def keys(self) -> list[bytes]:
        return [key for key in list(self._items) if self.peek(key)]

    def handle(self, data: bytes) -> bytes:
        """Carry out a batch of whole commands and return the replies."""
        replies = []
        while data:
            line, _, data = data.partition(b"\r\n")
            verb, *words = line.split(b" ")
            if verb == b"ms":
                size = int(words[1])
                value, data = data[:size], data[size + 2 :]
                replies.append(self._ms(words[0], value, words[2:]))
            elif verb == b"mg":
                replies.append(self._mg(words[0], words[1:]))
            elif verb == b"md":
                replies.append(self._md(words[0], words[1:]))
            else:
                version = b"VERSION %d.%d.%d\r\n" % self.version
                replies.append({b"mn": b"MN\r\n", b"version": version}[verb])
        return b"".join(replies)

    def _mg(self, key: bytes, flags: list[bytes]) -> bytes:
        item = self.peek(key)
        if item is None:
            return b" ".join([b"EN", *(f for f in flags if f[:1] in (b"O", b"k"))]) + b"\r\n"
        returned = []
        for flag in flags:
            match flag[:1]:
                case b"c":
                    returned.append(b"c%d" % item.cas)
                case b"f":
                    returned.append(b"f%d" % item.client_flags)
                case b"t":
                    left = -1 if item.expires_at is None else int(item.expires_at - self._clock.wall())
                    returned.append(b"t%d" % left)
                case b"T":
                    item.expires_at = self._expiry(int(flag[1:]))
                case b"O":
                    returned.append(flag)
        is_known = self.compares and b"C%d" % item.cas in flags
        if b"v" in flags and not is_known:
            return b" ".join([b"VA", b"%d" % len(item.value), *returned]) + b"\r\n" + item.value + b"\r\n"
        return b" ".join([b"HD", *returned]) + b"\r\n"

    def _ms(self, key: bytes, value: bytes, flags: list[bytes]) -> bytes:
        given = {flag[:1]: flag[1:] for flag in flags}
        item = self.peek(key)
        if self.room is not None and len(value) > self.room:
            self._drop(key)
            return b"SERVER_ERROR out of memory storing object\r\n"
        status = b"HD"
        if given.get(b"M") == b"E" and item is not None:
            status = b"NS"
        elif b"C" in given and item is None:
            status = b"NF"
        elif b"C" in given and item is not None and item.cas != int(given[b"C"]):
            status = b"EX"
        cas = 0
        if status == b"HD":
            self._drop(key)
            if self.room is not None:
                self.room -= len(value)
            self._last_cas += 1
            cas = self._last_cas
            client_flags = int(given.get(b"F", b"0"))
            self._items[key] = Item(value, client_flags, cas, self._expiry(int(given.get(b"T", b"0"))))
        return self._reply(status, flags, cas)

    def _md(self, key: bytes, flags: list[bytes]) -> bytes:
        given = {flag[:1]: flag[1:] for flag in flags}
        item = self.peek(key)
        if item is None:
            return self._reply(b"NF", flags, 0)
        if b"C" in given and item.cas != int(given[b"C"]):
            return self._reply(b"EX", flags, 0)
        self._drop(key)
        return self._reply(b"HD", flags, 0)

    def _drop(self, key: bytes) -> None:
        """Let an item go, and others have its room."""
        item = self._items.pop(key, None)
        if item is not None and self.room is not None:
            self.room += len(item.value)

    def _reply(self, status: bytes, flags: list[bytes], cas: int) -> bytes:
        returned = [b"c%d" % cas if flag == b"c" else flag for flag in flags if flag == b"c" or flag[:1] == b"O"]
        return b" ".join([status, *returned]) + b"\r\n"

    def _expiry(self, exptime: int) -> float | None:
        if exptime == 0:
            return None
        if exptime < 0:
            return 0.0
        return self._clock.wall() + exptime if exptime <= THIRTY_DAYS else float(exptime)
