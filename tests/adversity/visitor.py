"""One client of the application, who keeps a cookie and is never kept waiting."""

from __future__ import annotations

import time
from collections.abc import Callable

from msm_fast import SaveResult, Session, SessionManager
from tests.adversity.stopwatch import Stopwatch

MARGIN_S = 0.1
"""What a request may take beyond timeouts.request, and timeouts.lock if it wants one."""
_POLL_S = 0.005


class Visitor:
    """Makes requests to a worker, with one cookie; each is timed as a whole, whatever comes of it.

    worker: may be changed, as a balancer does. cookie: what the last response set. slowest_s: of all requests.
    result: what the last request's save said.
    """

    def __init__(self, worker: SessionManager, stopwatch: Stopwatch) -> None:
        self.worker = worker
        self.cookie: str | None = None
        self.slowest_s = 0.0
        self.result = SaveResult("unchanged")
        self._stopwatch = stopwatch

    def get(self) -> dict[str, object]:
        """Read everything; return it."""
        return self._request("GET", dict)

    def post(self, **attributes: object) -> SaveResult:
        """Set attributes; return what came of the save."""
        self._request("POST", lambda session: session.update(attributes))
        return self.result

    def post_after_load(self, meanwhile: Callable[[], object], **attributes: object) -> SaveResult:
        """Set attributes in a request during which something happens between load and save.

        What that itself takes is not counted.
        """
        paused_s = 0.0

        def use(session: Session) -> None:
            nonlocal paused_s
            session.update(attributes)
            interval = self._stopwatch.start()
            meanwhile()
            paused_s = interval.seconds()

        self._request("POST", use, lambda: paused_s)
        return self.result

    def log_out(self) -> SaveResult:
        """End the session."""
        self._request("POST", lambda session: session.invalidate())
        return self.result

    def _request(
        self, method: str, use: Callable[[Session], object], paused_s: Callable[[], float] = lambda: 0.0
    ) -> dict[str, object]:
        interval = self._stopwatch.start()
        scope = self.worker.request(self.cookie, method)
        try:
            use(scope.session)
            self.result = scope.save()
            self.cookie = scope.session.id
            return dict(scope.session)
        finally:
            scope.close()
            took_s = interval.seconds() - paused_s()
            self.slowest_s = max(self.slowest_s, took_s)
            settings = self.worker.settings
            limit_s = settings.timeouts.request + MARGIN_S
            limit_s += 0 if settings.locking == "merge" else settings.timeouts.lock
            assert took_s <= limit_s, f"a request took {took_s:.3f} s"


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for what happens in the background. While the machine stands still no time passes here either."""
    waited_s = 0.0
    while not condition():
        assert waited_s < timeout_s, "it did not happen in time"
        started = time.monotonic()
        time.sleep(_POLL_S)
        waited_s += min(time.monotonic() - started, 4 * _POLL_S)
