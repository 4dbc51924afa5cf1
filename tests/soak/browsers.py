"""The soak's users: each remembers what was acknowledged, and sees at once when it is not so."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.soak.messages import Answer, Request

ACKNOWLEDGED = ("stored", "merged")


@dataclass
class Browser:
    """One user. name: stands in the session, so that another's is noticed.

    acknowledged: per attribute the last value that was acknowledged as stored in the cluster with a backup; values only
    grow.
    """

    name: int
    rng: random.Random
    cookie: str | None = None
    acknowledged: dict[str, int] = field(default_factory=dict)
    last_value: int = 0
    writes_since_heal: int = 0
    violations: list[str] = field(default_factory=list)
    ended_cookies: dict[str, str] = field(default_factory=dict)
    """And when and where the latest were ended."""
    near_after_logout: int = 0
    """Answers from a near cache, in an outage, for a session that was ended at another worker before it."""
    not_told_yet: int = 0
    """Answers for an ended session from a node that had been away, before it was told."""

    def next_requests(self) -> list[Request]:
        """Return one request, or two to be sent at once."""
        dice = self.rng.random()
        if self.cookie is None:
            return [Request(None, "POST", self._changes("a"))]
        if dice < 0.02:
            return [Request(self.cookie, "POST", action="logout")]
        if dice < 0.04:
            return [Request(self.cookie, "POST", self._changes("a"), action="rotate")]
        if dice < 0.07 and self.ended_cookies:
            return [Request(list(self.ended_cookies)[-1], "GET")]
        if dice < 0.35:
            return [Request(self.cookie, "POST", self._changes("a")), Request(self.cookie, "POST", self._changes("b"))]
        return [Request(self.cookie, "GET") if dice < 0.7 else Request(self.cookie, "POST", self._changes("a"))]

    def take(
        self, requests: list[Request], answers: list[Answer | None], *, is_settled: bool = True, at: str = ""
    ) -> None:
        """Compare the answers with what was acknowledged before; None: the worker died, the outcome is unknown.

        is_settled: every node has heard of every logout. at: when and where, to be told with a violation.
        """
        acknowledged = dict(self.acknowledged)
        for request, answer in zip(requests, answers, strict=True):
            if answer is None or answer.error:
                if request.action:
                    self._start_over()  # nobody knows whether the session still has this id
                continue
            if request.cookie in self.ended_cookies:
                self._check_ended(request, answer, is_settled)
                continue
            self._check(request, answer, acknowledged)
            self._learn(request, answer, at)

    def _changes(self, name: str) -> dict[str, int]:
        self.last_value += 1
        return {name: self.last_value, "owner": self.name}

    def _check_ended(self, request: Request, answer: Answer, is_settled: bool) -> None:
        if answer.found:
            if answer.is_local:
                self.near_after_logout += 1
            elif not is_settled:
                self.not_told_yet += 1
            else:
                ended = self.ended_cookies[request.cookie or ""]
                self.violations.append(f"browser {self.name}: a session that was ended was served again; {ended}")

    def _check(self, request: Request, answer: Answer, acknowledged: dict[str, int]) -> None:
        owner = answer.found.get("owner", self.name)
        if owner != self.name:
            self.violations.append(f"browser {self.name} was given the session of browser {owner}")
        if answer.is_local or request.cookie is None:
            return
        for name, value in acknowledged.items():
            found = answer.found.get(name, -1)
            if found < value:
                self.violations.append(f"browser {self.name}: {name}={value} was acknowledged, {found} was found")

    def _learn(self, request: Request, answer: Answer, at: str) -> None:
        if request.action == "logout":
            if answer.status == "invalidated" and self.cookie is not None:
                self.ended_cookies = {**dict(list(self.ended_cookies.items())[-4:]), self.cookie: at}
            self._start_over()
            return
        if answer.status in ACKNOWLEDGED and answer.n_copies > 1:
            self.writes_since_heal += 1
            for name, value in request.changes.items():
                if name != "owner":
                    self.acknowledged[name] = max(value, self.acknowledged.get(name, 0))
        elif answer.status == "invalidated":
            self.violations.append(f"browser {self.name}: its session had ended without its doing")
        if request.cookie is None and answer.status not in ACKNOWLEDGED:
            return  # a login that was not stored: once more
        if answer.cookie != request.cookie and (not answer.is_local or request.action == "rotate"):
            self.cookie = answer.cookie
        if request.action == "rotate" and answer.is_local:
            self._start_over()  # kept on one host only: what was acknowledged before is under the old id

    def _start_over(self) -> None:
        self.cookie = None
        self.acknowledged = {}
