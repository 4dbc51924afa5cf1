"""Schedules of workers that serve sessions from their memory, and write them behind the requests, or die before."""

from __future__ import annotations

from msm_fast import SessionId
from tests.simulation.schedules.profiles import Profile
from tests.simulation.schedules.schedule import RETRY_S, WORKERS, Browser, Running, Schedule
from tests.simulation.sticky_worker import StickyWorker

_STAYS = 0.7
"""How often the balancer sends a browser to the worker that its cookie names."""


class StickySchedule(Schedule):
    """The balancer mostly heeds the route in the cookie. A worker may die, with all that it had not written."""

    workers: list[StickyWorker]  # type: ignore[assignment]

    def __init__(self, seed: int, profile: Profile) -> None:
        super().__init__(seed, profile)
        self._lives = [0] * WORKERS

    def _new_worker(self, number: int) -> StickyWorker:
        settings = self._settings(number, sticky=True, route=f"w{number}")
        return StickyWorker(self.driver, settings, self.rng.getrandbits(32), self.shared)

    def _choose_worker(self, browser: Browser) -> int:
        """Return the worker that the cookie names, or another: mostly only when nothing else of the browser runs."""
        if (browser.n_running and not self.profile.overlaps) or self.rng.random() < _STAYS:
            return _worker_of(browser.cookie)
        return self.rng.randrange(WORKERS)

    def _request(self, n: int, browser: Browser, number: int) -> Running:
        life = self._lives[number]
        is_moved = number != _worker_of(browser.cookie)
        browser.is_exclusive |= is_moved and not self.profile.overlaps
        try:
            yield from super()._request(n, browser, number)
        finally:
            request = self.history.requests[n]
            request.life = life
            ended = [other for other in self.history.of(browser.number) if other.is_logout]
            enders = {(other.worker, other.life) for other in ended}
            request.is_from_memory = not is_moved and (number, life) not in enders
            if request.action != "rotate":  # if that went wrong nobody knows which of its ids is alive
                browser.is_exclusive &= not is_moved or self.profile.overlaps

    @property
    def writes_behind(self) -> bool:
        return True

    def _let_die(self, number: int) -> None:
        super()._let_die(number)
        self._lives[number] += 1

    def _settle(self) -> None:
        """Let all be written that waits; it must be there then."""
        for _ in range(100):
            self.clock.advance(RETRY_S)
            self._probe_where_due()
            self._deliver_all()
            for worker in self.workers:
                worker.catch_up()
        if self.profile.is_outage:
            super()._settle()
            for worker in self.workers:
                worker.catch_up()
        for request in self.history.requests:
            request.was_written = request.status == "queued" and request.life == self._lives[request.worker]


def _worker_of(cookie: str) -> int:
    route = SessionId(cookie).route
    assert route is not None
    return int(route.removeprefix("w"))
