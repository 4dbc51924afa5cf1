"""A TCP proxy that does to a connection what bad networks do.

What it can't do: drop a SYN, so that connecting itself hangs (`FullBacklog` does that), or stop acknowledging bytes
as a machine without power does; what was swallowed was acknowledged by the proxy's kernel.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.proxy import Link, Proxy

Edit = Callable[[bytes], bytes]


def _any(data: bytes) -> bool:
    return True


@dataclass(slots=True)
class Faults:
    """What happens to the bytes of one direction; may be changed while connections are open.

    A piece is what one read brought: a small batch or its replies are one. only: the pieces that faults are for; the
    rest passes. swallows: pieces, and the end of the connection, go nowhere. resets: so many pieces are dropped and
    the connection is reset instead. cuts_after: so many bytes of a piece pass, then the connection ends. edit: changes
    a piece. delay_s, jitter_s: each piece waits, and up to jitter_s longer. slice_bytes: a piece passes in slices of so
    many bytes, every slice_s seconds. swaps: the next two pieces of different connections change places.
    """

    only: Callable[[bytes], bool] = _any
    swallows: bool = False
    resets: int = 0
    cuts_after: int | None = None
    edit: Edit | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0
    slice_s: float = 0.0
    swaps: bool = False


class FaultProxy(Proxy):
    """Passes bytes on with `requests` and `replies` done to them; see Faults."""

    def __init__(self, target_port: int) -> None:
        self.requests = Faults()
        self.replies = Faults()
        self._waiting: tuple[bytes, Link] | None = None
        self._forgotten: list[Link] = []
        self._rng = random.Random(0)
        super().__init__(target_port)

    def black_hole(self) -> None:
        """Accept connections and bytes, and never answer; connections that are open do not see an end."""
        self.requests = Faults(swallows=True)
        self.replies = Faults(swallows=True)

    def forget_connections(self) -> None:
        """Swallow what those carry that are open now, as a firewall does that has forgotten them; new ones work."""
        self._forgotten += self.links()

    def refuse(self) -> None:
        """Refuse new connections and reset those that are there, as the kernel of a machine does without the server."""
        self.stop_listening()
        self.reset_all()

    def reset_all(self) -> None:
        for link in self.links():
            link.reset()

    def heal(self) -> None:
        """Pass everything on again. Connections from which something was swallowed are reset: it is missing there."""
        swallowed = self.requests.swallows or self.replies.swallows
        self.requests = Faults()
        self.replies = Faults()
        self._waiting = None
        if swallowed:
            self.reset_all()
        if self._listener.fileno() < 0:
            self.listen()

    def carry(self, data: bytes, link: Link, *, is_reply: bool) -> None:
        faults = self.replies if is_reply else self.requests
        if any(link is forgotten for forgotten in self._forgotten):
            return
        if not faults.only(data):
            super().carry(data, link, is_reply=is_reply)
        elif faults.swallows:
            pass
        elif faults.resets:
            faults.resets -= 1
            link.reset()
        elif faults.swaps and is_reply:
            self._swap(data, link)
        else:
            self._carry_late(faults, faults.edit(data) if faults.edit else data, link, is_reply)

    def end(self, link: Link, *, with_reset: bool) -> None:
        if not (self.requests.swallows or self.replies.swallows):
            super().end(link, with_reset=with_reset)

    def _carry_late(self, faults: Faults, data: bytes, link: Link, is_reply: bool) -> None:
        if faults.delay_s or faults.jitter_s:
            time.sleep(faults.delay_s + self._rng.random() * faults.jitter_s)
        passing = data if faults.cuts_after is None else data[: faults.cuts_after]
        step = faults.slice_bytes or max(len(passing), 1)
        for at in range(0, len(passing), step):
            if at and link.is_gone.wait(faults.slice_s):
                return
            super().carry(passing[at : at + step], link, is_reply=is_reply)
        if faults.cuts_after is not None:
            link.close()

    def _swap(self, data: bytes, link: Link) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
            if waiting is None or waiting[1] is link:
                self._waiting = (data, link)
                return
        self.replies.swaps = False
        other_data, other_link = waiting
        other_link.client.sendall(data)
        link.client.sendall(other_data)


class FullBacklog:
    """A port where connecting hangs: a listener that accepts nothing, with as many waiting as its kernel lets wait."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._waiting: list[socket.socket] = []
        while self._fits_one_more():
            pass

    def _fits_one_more(self) -> bool:
        sock = socket.socket()
        self._waiting.append(sock)
        sock.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            sock.connect(self._listener.getsockname())
            return True
        return False

    def close(self) -> None:
        for sock in (self._listener, *self._waiting):
            sock.close()


# -- which pieces


def once(only: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    """Return a function that picks out the first piece that `only` does, and no other."""
    met: list[bytes] = []

    def is_first(data: bytes) -> bool:
        if not met and only(data):
            met.append(data)
            return True
        return False

    return is_first


def is_store(data: bytes) -> bool:
    """Whether a piece of a request begins with a command to store."""
    return data.startswith(b"ms ")


def has_value(data: bytes) -> bool:
    """Whether a piece of a reply begins with a value."""
    return data.startswith(b"VA ")


def is_stored(data: bytes) -> bool:
    """Whether a piece of a reply says that a write was done."""
    return re.match(rb"HD c[0-9]+ O", data) is not None  # a copy that was asked for without its value has more flags


# -- edits: what they find is the first reply with a value, "VA <size> <flags>\r\n<value>\r\n"


def flip_bit(at: int, bit: int = 0) -> Edit:
    """Return an edit that flips a bit of the value's byte `at`, counted from its end if negative."""

    def edit(data: bytes) -> bytes:
        head, value = data.split(b"\r\n", 1)
        changed = bytearray(value[:-2])
        changed[at] ^= 1 << bit
        return head + b"\r\n" + bytes(changed) + value[-2:]

    return edit


def glue(extra: bytes) -> Edit:
    """Return an edit that adds bytes which nobody asked for."""
    return lambda data: data + extra


def without_value(data: bytes) -> bytes:
    """Return the reply to a get with its head alone, as if no value had been asked for."""
    head, _, _ = data.partition(b"\r\n")
    _, _, *flags = head.split(b" ")
    return b" ".join([b"HD", *flags]) + b"\r\n"


def change_opaque(data: bytes) -> bytes:
    """Return a reply with the opaque of another command."""
    head, separator, rest = data.partition(b"\r\n")
    words = [b"O99999" if word.startswith(b"O") else word for word in head.split(b" ")]
    return b" ".join(words) + separator + rest
