"""A request whose session is not available."""

from __future__ import annotations

from typing import Any

from msm_fast import SaveResult
from msm_fast.request_scope import AsyncRequestScope


class Failing(AsyncRequestScope):
    """A scope whose session cannot be found, or not be stored."""

    error: Exception
    fails_to = "load"

    def _find(self) -> Any:
        if self.fails_to == "load":
            raise self.error
        return super()._find()

    async def save(self) -> SaveResult:
        if self.fails_to == "save" and self.session.was_used:
            raise self.error
        return await super().save()
