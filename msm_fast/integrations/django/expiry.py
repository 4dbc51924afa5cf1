"""Expiry per session: what Django's set_expiry was given, as lives that the engine knows."""

from __future__ import annotations

import math
from datetime import datetime

from django.utils import timezone

from msm_fast.integrations.django.managers import Managers
from msm_fast.session import Session

__all__ = ["EXPIRY", "set_lifetimes"]

EXPIRY = "_session_expiry"
"""Where Django keeps in a session what set_expiry was given."""

_LONGEST_S = 2**32 - 1


def set_lifetimes(session: Session, managers: Managers, cookie_age: float) -> bool:
    """Give the session the life that its expiry says, or the usual one; return False if that is over already.

    A number of seconds counts from the session's last use, a moment from now on for good. cookie_age: how long it may
    be unused if neither it nor MSM_FAST says; 0, until the browser ends, says nothing.
    """
    expiry = session.get(EXPIRY)
    settings = managers.settings
    unused_s = settings.max_inactive if managers.has_own_lifetime else cookie_age
    if not expiry and session.has_lifetimes(unused_s, settings.absolute_lifetime):
        return True
    lifetime_s = settings.absolute_lifetime
    if isinstance(expiry, str):
        expiry = datetime.fromisoformat(expiry)
    if isinstance(expiry, datetime):
        if expiry <= (timezone.now() if timezone.is_aware(expiry) else datetime.now()):
            return False
        until_s = math.ceil(expiry.timestamp() - session.created_at)
        lifetime_s = until_s if lifetime_s is None else min(lifetime_s, until_s)
        if unused_s is not None:
            unused_s = max(until_s, unused_s)
    elif expiry:
        if expiry < 0:
            return False
        unused_s = expiry
    session.max_inactive = _whole(unused_s)
    session.absolute_lifetime = _whole(lifetime_s)
    return True


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else min(max(math.ceil(seconds), 1), _LONGEST_S)
