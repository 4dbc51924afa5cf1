"""What the sessions hold, and what a request does with it: values that every contender can store."""

from __future__ import annotations

import json
import random
from collections.abc import MutableMapping
from typing import Any

SIZES = {"1 KB": 1_000, "20 KB": 20_000, "200 KB": 200_000}
"""Bytes that the attributes take as JSON, about."""

_SYLLABLES = ("ka", "lo", "mi", "ren", "sta", "tor", "ul", "ve", "xi", "bran", "de", "fo", "gri", "ha", "en", "qu")


def attributes_of(size: int, seed: int) -> dict[str, Any]:
    """Return a session of about size bytes: some small attributes, and the rest of it in two large ones."""
    source = random.Random(seed)
    attributes: dict[str, Any] = {
        "user_id": 4_711_042 + seed,
        "user_name": "Zoë Müller",
        "locale": "de_CH",
        "csrf_token": f"{source.getrandbits(160):040x}",
        "cart": [{"sku": f"A-{i}", "quantity": i, "price": 9.95 * i} for i in range(1, 4)],
        "preferences": {"theme": "dark", "page_size": 50, "columns": ["name", "price"]},
        "visits": 0,
        "draft": "",
        "search_results": [],
    }
    rest = size - len(json.dumps(attributes))
    results = [_text(source, 96) for _ in range(rest // 200)]
    attributes["draft"] = _text(source, rest - 100 * len(results))
    attributes["search_results"] = results
    return attributes


def _text(source: random.Random, n: int) -> str:
    words: list[str] = []
    length = 0
    while length < n:
        words.append("".join(source.choices(_SYLLABLES, k=source.randint(1, 4))))
        length += len(words[-1]) + 1
    return " ".join(words)[:n]


def serve(session: MutableMapping[str, Any], *, is_write: bool) -> str:
    """Read two attributes, count the visit if is_write, and return the response's body.

    Raises: KeyError if the session was lost: that is an error of the server's, which the load generator counts.
    """
    cart, visits = session["cart"], session["visits"]
    if is_write:
        visits += 1
        session["visits"] = visits
    return body(len(cart), visits)


def body(n_items: int, visits: int) -> str:
    """Return a response's body; without a session it says the same of nobody."""
    return f"{n_items} items, visit {visits}\n"


def visits_in(text: str) -> int:
    """Return what a response's body says of the visits."""
    return int(text.split()[-1])
