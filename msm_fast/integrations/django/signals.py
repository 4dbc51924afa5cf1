"""What receivers may be connected to, in Django's way."""

from __future__ import annotations

from django.dispatch import Signal

__all__ = ["session_event"]

session_event = Signal()
"""Sent with each Event of this process's managers, such as the loss of a node or the end of an outage.

sender: the manager's class, SessionManager or AsyncSessionManager, which each tell what they see. event: an Event with
    kind, detail, node and session, none of them an id. A receiver is called in the thread, or in the event loop, in
    which it happens, most often within a request: it must not wait. Django logs what it raises, which harms nobody.
"""
