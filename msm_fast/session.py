"""A session as one request sees it, and what the engine knows of it."""

from __future__ import annotations

from typing import Literal

from msm_fast._core.session import Session
from msm_fast._core.state import ABSENT, UNKNOWN, SessionState, Stored

__all__ = ["ABSENT", "UNKNOWN", "LocalKind", "Session", "SessionState", "Stored"]

LocalKind = Literal["local", "provisional", "tagged", "ended"]
"""Why a session is kept in this process, or on this host, and not in the cluster.

local: the cluster could not be used when it was saved. provisional: it stands for one that cannot be reached, under the
same id, and never goes to the cluster. tagged: it holds what cannot be stored. ended: it was ended, and not every node
may know.
"""
