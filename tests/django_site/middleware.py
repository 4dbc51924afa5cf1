"""Middleware that a site may have below that of the sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware

__all__ = ["look_at_session"]


@sync_and_async_middleware
def look_at_session(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Look at the session before the view, as what asks for a login does."""

    async def look_in_loop(request: HttpRequest) -> Any:
        request.session.get("user")
        return await get_response(request)

    def look(request: HttpRequest) -> Any:
        request.session.get("user")
        return get_response(request)

    return look_in_loop if iscoroutinefunction(get_response) else look
