"""A pytest plugin that gives each Flask application our sessions, but those that bring an interface of their own."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask

from msm_fast import SessionManager, Settings
from msm_fast.integrations.flask import MsmFast
from msm_fast.integrations.flask.tagged_json import SERIALIZERS

_manager = SessionManager(Settings.build(os.environ["MSM_FAST_NODES"], serializer=SERIALIZERS))
_extension = MsmFast(manager=_manager)
_make_app = Flask.__init__
_of_flask = Flask.session_interface


def _make_app_with_sessions(app: Flask, *arguments: Any, **options: Any) -> None:
    _make_app(app, *arguments, **options)
    if type(app).session_interface is _of_flask:
        _extension.init_app(app)


Flask.__init__ = _make_app_with_sessions  # type: ignore[method-assign]


def pytest_unconfigure() -> None:
    _manager.close()
