"""The node of a session, read from its id as a cookie carries it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bench.conftest import Measure
from bench.targets import NODE_OF_ID
from msm_fast import SessionId

TEXTS = [str(SessionId.generate("n1", "web1")) for _ in range(1000)]
PATTERN = re.compile(r"([A-Za-z0-9_~]{1,128})(?:-([A-Za-z0-9_]{1,32}))?(?:\.([A-Za-z0-9_-]{1,64}))?")


# The loops are written out: a function called per id would cost more than the work.
def by_msm_fast() -> object:
    parse = SessionId.parse
    node = None
    for text in TEXTS:
        node = parse(text).node  # type: ignore[union-attr]
    return node


def by_fullmatch() -> object:
    fullmatch = PATTERN.fullmatch
    node = None
    for text in TEXTS:
        node = fullmatch(text)[2]  # type: ignore[index]
    return node


def by_fullmatch_groups() -> object:
    fullmatch = PATTERN.fullmatch
    node = None
    for text in TEXTS:
        _, node, _ = fullmatch(text).groups()  # type: ignore[union-attr]
    return node


def by_slice() -> object:
    node = None
    for text in TEXTS:
        if len(text) == 40:
            node = text[33:35]
    return node


CONTENDERS: dict[str, Callable[[], object]] = {
    "msm_fast": by_msm_fast,
    "re.fullmatch, only the node read": by_fullmatch,
    "re.fullmatch, its groups read": by_fullmatch_groups,
    "floor: len and a slice": by_slice,
}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_node_of_an_id(contender: str, measure: Measure) -> None:
    run = CONTENDERS[contender]
    assert run() == "n1"
    measure(NODE_OF_ID, contender, run, len(TEXTS))
