"""What Flask's own sessions can hold and the native serializer does not know."""

from __future__ import annotations

import contextlib

from flask.json.tag import TaggedJSONSerializer
from flask.sessions import session_json_serializer
from markupsafe import Markup

from msm_fast._core.codec import register_type
from msm_fast.errors import ConfigurationError

__all__ = ["SERIALIZERS", "TaggedJson"]


class TaggedJson:
    """Flask's tagged JSON: subclasses of dict and str, lazy texts, dataclasses, and types with a tag of their own.

    json: tags are added to it with its `register`.
    """

    name = "flask"

    def __init__(self, json: TaggedJSONSerializer = session_json_serializer) -> None:
        self.json = json

    def dumps(self, value: object) -> bytes:
        """Return value as tagged JSON."""
        return self.json.dumps(value).encode()

    def loads(self, data: bytes) -> object:
        """Return what was written by dumps."""
        value: object = self.json.loads(data.decode())
        return value


SERIALIZERS = ("native", TaggedJson())
"""How a Flask application's attributes are stored if its settings do not say: natively, without a loss, where that can
be done, and else as Flask itself stores them."""

with contextlib.suppress(ConfigurationError):  # the application has taught it, under a name of its own
    register_type(Markup, "markupsafe.Markup", str, Markup)
