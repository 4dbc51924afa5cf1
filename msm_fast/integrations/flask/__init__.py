"""Sessions for Flask: an extension, a session interface, and commands."""

from msm_fast.integrations.flask.extension import MsmFast
from msm_fast.integrations.flask.interface import MsmSessionInterface
from msm_fast.integrations.flask.session import FlaskSession

__all__ = ["FlaskSession", "MsmFast", "MsmSessionInterface"]
