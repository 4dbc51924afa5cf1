"""What the soak's clients and workers say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AUTH_KEY = b"msm_fast soak"


@dataclass(frozen=True)
class Request:
    """What a browser asks for. changes: attributes to set. action: "logout", "rotate" or none."""

    cookie: str | None
    method: str = "GET"
    changes: dict[str, int] = field(default_factory=dict)
    action: str = ""


@dataclass(frozen=True)
class Answer:
    """What the application was given and told.

    found: the attributes before the changes. status: of the save. n_copies: how many it has stored.
    error: the class of what was raised, "" for none.
    took_s: the request's time on the worker's clock, less what the machine did not give the process meanwhile.
    """

    cookie: str | None = None
    found: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    n_copies: int = 0
    is_new: bool = False
    is_local: bool = False
    error: str = ""
    took_s: float = 0.0
