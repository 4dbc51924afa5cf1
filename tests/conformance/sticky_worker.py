"""A simulated worker with sticky sessions."""

from __future__ import annotations

from typing import Any

from msm_fast import SaveResult, Session
from tests.simulation.test_sticky import StickyWorker


class PromptWorker(StickyWorker):
    """Does what a request left behind as soon as the request has been served."""

    def load(self, session_id: str, expect_write: bool = True) -> Session | None:
        session = super().load(session_id, expect_write)
        self.catch_up()
        return session

    def save(self, session: Session) -> SaveResult:
        result = super().save(session)
        self.catch_up()
        return result

    def store(self, **attributes: Any) -> str:
        session = self.create(**attributes)
        assert self.save(session).status in ("queued", "stored")
        return session.id
