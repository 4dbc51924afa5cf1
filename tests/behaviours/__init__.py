"""What users of a session system may expect, and which tests show it of each framework; see docs/behaviours.md.

A test shows a behaviour by the mark `shows(key, …)`, and tells what it has measured by `record_property(key, value)`.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

__all__ = ["BEHAVIOURS", "FOLDER", "FRAMEWORKS", "Behaviour", "Record", "shown_by", "timed"]

T = TypeVar("T")
Record = Callable[[str, object], None]
"""pytest's record_property."""

FOLDER = Path(__file__).parents[1] / "integration"
FRAMEWORKS = {
    "Django": ["test_django.py"],
    "Flask": ["test_flask.py"],
    "Starlette": ["test_asgi.py", "test_asgi_matrix.py"],
}
"""By name, the modules with its tests."""


class Behaviour(NamedTuple):
    """outcome: what is to be said where all its tests pass, of the largest value that they have measured, if any.

    A float is in seconds.
    """

    sentence: str
    outcome: str = "yes"


BEHAVIOURS = {
    "writers": Behaviour("two overlapping writers keep both keys"),
    "reader": Behaviour("a slow reader rolls nothing back"),
    "nested": Behaviour("a change inside a value is saved"),
    "logout": Behaviour("a logout is not undone by a slow write"),
    "fixation": Behaviour("an id chosen by the client is not adopted"),
    "rotation": Behaviour("after a rotation the old id is dead"),
    "unserializable": Behaviour(
        "a value that cannot be stored stops the application with an error, or is left out and the rest lives, as the "
        "policy says"
    ),
    "corrupt": Behaviour("a corrupt copy: the other one serves, in the same request"),
    "node": Behaviour("a node dies: its sessions are served from the other, in the same request"),
    "outage": Behaviour("in an outage nobody is logged out"),
    "down": Behaviour(
        'all nodes down, with `on_cluster_lost="error"`: the answer is 503, the cookie stays', "yes, within {}"
    ),
    "hanging": Behaviour(
        "all nodes hang, with 0.5 s for a request's sessions: the cookie stays, and the answer comes", "within {}"
    ),
    "back": Behaviour("the nodes are back: the same cookie is logged in again", "after {}"),
    "cost": Behaviour("round trips to read, to write, and where there is no session", "{}"),
}


def shown_by() -> dict[str, dict[str, list[str]]]:
    """Return the names of the tests that show each behaviour, by key and framework."""
    shown: dict[str, dict[str, list[str]]] = {key: {name: [] for name in FRAMEWORKS} for key in BEHAVIOURS}
    for framework, modules in FRAMEWORKS.items():
        for module in modules:
            for test, keys in _marked_in(FOLDER / module):
                for key in keys:
                    shown[key][framework].append(f"{module}::{test}")
    return shown


def _marked_in(module: Path) -> Iterator[tuple[str, list[str]]]:
    for node in ast.parse(module.read_text()).body:
        for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.shows":
                assert isinstance(node, ast.FunctionDef)
                yield node.name, [ast.literal_eval(argument) for argument in mark.args]


def timed(act: Callable[[], T]) -> tuple[T, float]:
    """Return what act returns, and how many seconds it took."""
    started = time.monotonic()
    return act(), time.monotonic() - started
