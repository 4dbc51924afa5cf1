"""What sessions hold."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

Attributes = dict[str, Any]


def mixed_attributes(suffix: str = "") -> Attributes:
    """Return 20 attributes such as applications keep in sessions."""
    attributes = {
        "user_id": 4_711_042,
        "user_name": "Zoë Müller",
        "email": "zoe.mueller@example.org",
        "is_admin": False,
        "locale": "de_CH",
        "csrf_token": "8c1f0f3f5b6a4c7e9d2b1a0f8e7d6c5b4a392817",
        "logged_in_at": dt.datetime(2024, 5, 17, 8, 30, 12, 345678, dt.timezone.utc),
        "birthday": dt.date(1987, 11, 3),
        "credit": decimal.Decimal("1042.50"),
        "tenant": uuid.UUID("5f0c6d1e-8f0a-4b52-9d1b-3c0e7c9f2a11"),
        "cart": [{"sku": f"A-{i}", "quantity": i, "price": 9.95 * i} for i in range(1, 4)],
        "recently_seen": list(range(1000, 1016)),
        "messages": ["Your order was sent.", "Welcome back."],
        "preferences": {"theme": "dark", "page_size": 50, "columns": ["name", "price"], "beta": True},
        "position": (47.3769, 8.5417),
        "avatar": bytes(range(64)),
        "referrer": None,
        "score": 0.875,
        "roles": {"reader", "editor"},
        "next_url": "/account/orders?page=2&sort=date",
    }
    return {name + suffix: value for name, value in attributes.items()}
