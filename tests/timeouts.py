"""Limits for the workers that tests start."""

from msm_fast import Timeouts

__all__ = ["HURRIED", "UNHURRIED"]

UNHURRIED = Timeouts(connect=15, operation=15, request=30)
"""For all that is not about time: a machine that stands still for a moment is no fault then."""
HURRIED = Timeouts(connect=0.2, operation=0.2, request=0.5)
"""For nodes that hang."""
