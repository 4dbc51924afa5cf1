"""Which attributes cannot be stored, known from earlier failures, and the file that keeps them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from msm_fast.errors import ConfigurationError

__all__ = ["Blacklist"]

Entry = tuple[str, str]
_Stamp = tuple[int, int, int]

_MOST = 10_000
"""Entries that `add` lets the list grow to."""
_FORMAT = 1
_LOOK_AGAIN_S = 5.0
"""How often the file is looked at for what other processes have changed."""
_LOCK_WAIT_S = 0.1
"""A request may be waiting; what could not be saved is saved with the next change."""
_LOCK_POLL_S = 0.005


class Blacklist:
    """Names of attributes with the types of value under them that are stored as null: ("handle", "shop.models.Handle").

    It looks like a set of such pairs. With a path each change is saved there, and what other processes change there is
    seen within five seconds; to delete the file clears the list.

    on_problem: called with a sentence when the file can be read or written no more; then a change holds in this process
    only, until it can be saved with a later one. clock: monotonic seconds.
    Raises: ConfigurationError if the file is there and cannot be read, or its folder is not there.
    Thread-safety: a reader sees one whole state and takes no lock; changes are made under one, which is not held while
        the file is used. For that there are two more, one for threads and one for processes, so that nobody loses
        anything of another's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        on_problem: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = None if path is None else _BlacklistFile(path)
        self._on_problem = on_problem
        self._clock = clock
        self._in_background: Callable[[Callable[[], object]], object] | None = None
        self.renew_lock()
        self._unsaved: dict[Entry, bool] = {}
        """Changes that the file does not have yet: whether the entry is to be there."""
        self._entries: dict[Entry, None] = {}
        self._types: dict[str, frozenset[str]] = {}
        self._stamp: _Stamp | None = None
        self._look_again_at = clock() + _LOOK_AGAIN_S
        if self._file is not None:
            try:
                self._stamp = self._file.stamp()
                self._set(self._file.read())
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    "blacklist_path", path, f"a black list, or no file yet, in a folder that exists ({error})"
                ) from error

    def __contains__(self, entry: object) -> bool:
        self._look_if_due()
        return entry in self._entries

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the pairs of name and type name, the oldest first."""
        self._look_if_due()
        return iter(list(self._entries))

    def __len__(self) -> int:
        self._look_if_due()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Blacklist, {len(self._entries)} entries>"

    def types_by_name(self) -> dict[str, frozenset[str]]:
        """Return the names, each with its types; not to be changed. Costs a look at the file every five seconds."""
        self._look_if_due()
        return self._types

    def add(self, name: str, type_name: str) -> bool:
        """Put a pair on the list; return whether it is new to it. A list of 10,000 takes no more.

        type_name: with its module, as in "shop.models.Handle".
        """
        if not isinstance(name, str) or not isinstance(type_name, str):
            raise TypeError(f"a black list holds two str, not {name!r} and {type_name!r}")
        return len(self._entries) < _MOST and self._change({(name, type_name): True}, waits=False)

    def remove(self, name: str, type_name: str) -> bool:
        """Take a pair off the list, in the file at once; return whether it was on it."""
        self._look()
        return self._change({(name, type_name): False})

    def clear(self) -> None:
        """Take everything off the list, in the file at once."""
        self._look()
        self._change(dict.fromkeys(self._entries, False))

    def use_file_in_background(self, run: Callable[[Callable[[], object]], object]) -> None:
        """Let `add`, and looks at the file, not wait for it: run has a function called elsewhere, and does not wait.

        What is added holds at once; `save` waits until the file has it.
        """
        self._in_background = run

    @property
    def is_saved(self) -> bool:
        """Whether the file, if there is one, has all changes."""
        return not self._unsaved

    def save(self) -> None:
        """Save what is not in the file yet."""
        if self._file is not None and not self.is_saved:
            self._save(self._file)

    def renew_lock(self) -> None:
        """Replace the locks in a forked child, where another thread may have held them."""
        self._lock = threading.Lock()
        self._file_lock = threading.Lock()

    def _change(self, wanted: Mapping[Entry, bool], *, waits: bool = True) -> bool:
        """Make entries be there or not; return whether one of them was not so before. waits: for the file."""
        with self._lock:
            before = self._entries
            if all((entry in before) == is_wanted for entry, is_wanted in wanted.items()):
                return False
            self._set(_changed(before, wanted))
            if self._file is None:
                return True
            self._unsaved.update(wanted)
        if not waits and self._start(self.save):
            return True
        stood = self._save(self._file)
        return any(stood.get(entry, entry in before) != is_wanted for entry, is_wanted in wanted.items())

    def _save(self, file: _BlacklistFile) -> dict[Entry, bool]:
        """Save what is not saved yet; return of all that was, whether it was in the file before."""
        problem: str | None = None
        with self._file_lock:
            with self._lock:
                unsaved = dict(self._unsaved)
            try:
                known, stamp = file.change(unsaved)
            except (OSError, ValueError) as error:
                problem = (
                    f"the black list could not be saved in {file.path}: {error}. What changed holds in this "
                    "process only, until a later change can be saved"
                )
                stood = {}
            else:
                stood = {entry: entry in known for entry in unsaved}
                with self._lock:
                    self._stamp = stamp
                    meanwhile = {
                        e: is_wanted for e, is_wanted in self._unsaved.items() if unsaved.get(e) is not is_wanted
                    }
                    self._unsaved = meanwhile
                    self._set(_changed(known, {**unsaved, **meanwhile}))
        self._complain(problem)
        return stood

    def _look_if_due(self) -> None:
        if self._file is not None and self._clock() >= self._look_again_at:
            self._look_again_at = self._clock() + _LOOK_AGAIN_S
            if not self._start(partial(self._look, waits=False)):
                self._look(waits=False)

    def _look(self, *, waits: bool = True) -> None:
        """Take over what other processes have changed in the file; without waits only if nobody is using it."""
        if self._file is None or not self._file_lock.acquire(blocking=waits):
            return
        problem = None
        try:
            self._look_again_at = self._clock() + _LOOK_AGAIN_S
            stamp = self._file.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                known = self._file.read()
                with self._lock:
                    self._set(_changed(known, self._unsaved))
        except (OSError, ValueError) as error:
            problem = f"the black list in {self._file.path} cannot be read any more, and stays as it was: {error}"
        finally:
            self._file_lock.release()
        self._complain(problem)

    def _start(self, function: Callable[[], object]) -> bool:
        """Have function called in the background; return False if that is not possible."""
        if self._in_background is None:
            return False
        try:
            self._in_background(function)
        except RuntimeError:  # the interpreter is about to end, and starts no threads any more
            return False
        return True

    def _set(self, entries: dict[Entry, None]) -> None:
        types: dict[str, set[str]] = {}
        for name, type_name in entries:
            types.setdefault(name, set()).add(type_name)
        self._entries = entries
        self._types = {name: frozenset(names) for name, names in types.items()}

    def _complain(self, problem: str | None) -> None:
        if problem is not None and self._on_problem is not None:
            self._on_problem(problem)


def _changed(entries: Mapping[Entry, None], wanted: Mapping[Entry, bool]) -> dict[Entry, None]:
    changed = {entry: None for entry in entries if wanted.get(entry, True)}
    changed.update((entry, None) for entry, is_wanted in wanted.items() if is_wanted)
    return changed


class _BlacklistFile:
    """A JSON file, replaced as a whole, so that a reader or a crash meets the old list or the new one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(path)
        self._folder = os.path.dirname(self.path)

    def stamp(self) -> _Stamp | None:
        """Return what differs after each change; None if there is no file, or it cannot be looked at."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> dict[Entry, None]:
        """Return what the file says, nothing if there is none. Raises: OSError; ValueError if it is no black list."""
        try:
            with open(self.path, encoding="utf-8") as file:
                content = json.load(file)
        except FileNotFoundError:
            os.stat(self._folder)
            return {}
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(content, dict) or content.get("msm_fast_blacklist") != _FORMAT:
            raise ValueError("it is no black list of this version")
        entries = content.get("entries")
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            raise ValueError("its entries are not pairs of attribute and type")
        return {(entry["attribute"], entry["type"]): None for entry in entries}

    def change(self, wanted: Mapping[Entry, bool]) -> tuple[dict[Entry, None], _Stamp | None]:
        """Make entries be there or not; return what was there before, and the new stamp.

        Raises: OSError; ValueError if the file is no black list: it is left as it is.
        """
        with self._locked():
            known = self.read()
            changed = _changed(known, wanted)
            if changed != known:
                self._replace(changed)
            return known, self.stamp()

    def _replace(self, entries: Mapping[Entry, None]) -> None:
        rows = [{"attribute": name, "type": type_name} for name, type_name in entries]
        text = json.dumps({"msm_fast_blacklist": _FORMAT, "entries": rows}, indent=1)
        handle, temporary = tempfile.mkstemp(prefix=os.path.basename(self.path) + ".", dir=self._folder)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                self._keep_owner(file.fileno())
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _keep_owner(self, handle: int) -> None:
        """Give the file that takes the old one's place its rights, so that all who could read it still can."""
        with contextlib.suppress(OSError):
            old = os.stat(self.path)
            os.fchmod(handle, stat.S_IMODE(old.st_mode))
            os.fchown(handle, old.st_uid, old.st_gid)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file. Raises: TimeoutError, which is an OSError."""
        handle = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + _LOCK_WAIT_S
            while not _takes_lock(handle):
                if time.monotonic() >= until:
                    raise TimeoutError(f"another process has held {self.path}.lock for too long")
                time.sleep(_LOCK_POLL_S)
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)  # a child forked meanwhile has the handle too
        finally:
            os.close(handle)


def _takes_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("attribute"), str) and isinstance(entry.get("type"), str)
