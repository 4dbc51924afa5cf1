"""The extension: one object that gives a Flask application its sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from flask import Flask, got_request_exception, request_started, session

from msm_fast.errors import ConfigurationError
from msm_fast.integrations.flask.commands import commands
from msm_fast.integrations.flask.interface import (
    MsmSessionInterface,
    close_session,
    leave_websocket_unlocked,
    note_unanswered,
    refusal,
)
from msm_fast.integrations.flask.session import FlaskSession
from msm_fast.integrations.flask.tagged_json import SERIALIZERS
from msm_fast.integrations.session_headers import UNREACHABLE
from msm_fast.manager import SessionManager
from msm_fast.settings import Settings

__all__ = ["MsmFast"]


class MsmFast:
    """Keeps the sessions of Flask applications: `MsmFast(app)`, or `init_app` for each.

    The settings are those of `Settings`, in the dict `app.config["MSM_FAST"]`; without nodes in it sessions are kept in
    the process. The cookie, and how long a permanent session lives, is said by Flask's own settings. The manager is
    `app.extensions["msm_fast"]`.

    When a session cannot be reached, the answer to a request that looks at it is 503 with Retry-After; an error handler
    of the application's for SessionUnavailable, CorruptRecord or LockTimeout may say it otherwise. The cookie stays.

    With Flask-Login a login gives the session a new id.

    manager: of all applications; None makes one for each.
    Raises: ConfigurationError.
    """

    def __init__(self, app: Flask | None = None, *, manager: SessionManager | None = None) -> None:
        if manager is not None and not isinstance(manager, SessionManager):
            raise ConfigurationError("manager", type(manager), "a SessionManager(…), or None: one by app.config")
        self._manager = manager
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give app its sessions. Raises: ConfigurationError."""
        manager = self._manager or SessionManager(_settings_of(app))
        app.extensions["msm_fast"] = manager
        app.session_interface = MsmSessionInterface(manager)
        if manager.settings.locking not in ("merge", "none"):  # it lets the lock go
            app.teardown_request(close_session)
            request_started.connect(leave_websocket_unlocked, app)
        for kind in UNREACHABLE:
            app.error_handler_spec[None][None].setdefault(kind, refusal)
        got_request_exception.connect(note_unanswered, app)
        app.cli.add_command(commands)
        _rotate_at_login(app)


def _settings_of(app: Flask) -> Settings:
    configured = app.config.get("MSM_FAST", {})
    if isinstance(configured, Settings):
        return configured
    if not isinstance(configured, Mapping):
        # Not with its value: what Flask takes from the environment and is no JSON is text, with the secrets in it.
        raise ConfigurationError("MSM_FAST", type(configured), "a dict of settings by name, or a Settings object")
    return Settings.from_mapping({"serializer": SERIALIZERS, **configured})


def _rotate_at_login(app: Flask) -> None:
    """Have Flask-Login, if it is there, tell of each login, by its "remember me" cookie or confirmed anew as well."""
    with contextlib.suppress(ImportError):
        from flask_login import signals

        for signal in (signals.user_logged_in, signals.user_loaded_from_cookie, signals.user_login_confirmed):
            signal.connect(_rotate_id, app)


def _rotate_id(app: Flask, **_: Any) -> None:
    if isinstance(session, FlaskSession):  # the proxy tells the type of what it stands for
        session.rotate_id()
