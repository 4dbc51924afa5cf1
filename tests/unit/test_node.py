from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import ConfigurationError, Node
from msm_fast.node import parse_failover_nodes, parse_nodes


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", []),
        ("localhost:11211", [Node("", "localhost", 11211)]),
        ("n1:localhost:11211", [Node("n1", "localhost", 11211)]),
        ("n1:a:1,n2:b:2", [Node("n1", "a", 1), Node("n2", "b", 2)]),
        ("n1:a:1 n2:b:2", [Node("n1", "a", 1), Node("n2", "b", 2)]),
        (" n1:a:1 ,\n n2:b:2 ", [Node("n1", "a", 1), Node("n2", "b", 2)]),
        ("n1:[::1]:11211", [Node("n1", "::1", 11211)]),
        ("/run/memcached.sock", [Node("", "/run/memcached.sock")]),
        ("n1:/run/memcached.sock", [Node("n1", "/run/memcached.sock")]),
    ],
)
def test_text_names_nodes(text: str, nodes: list[Node]) -> None:
    assert list(parse_nodes(text)) == nodes


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "n1:localhost",
        "n-1:localhost:11211",
        "n1:localhost:0",
        "n1:localhost:65536",
        "http://host:8091/pools",
        "redis://localhost",
        "memcached://cache.internal",
        "localhost:11211,localhost:11212",  # several need ids
        "n1:a:1,n1:b:2",  # an id twice
        "n1:a:1,n2:a:1",  # an address twice: its backup would be the same process
        "n1:a:1;n2:b:2",
        "n1:a\r\n:1",
    ],
)
def test_text_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_nodes(text)
    assert caught.value.setting == "nodes"
    assert caught.value.accepted


def test_what_is_wrong_with_an_entry_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"nodes='memcached-0:10.0.0.1:11211'.*id.*letters.*no dash"):
        parse_nodes("memcached-0:10.0.0.1:11211")
    with pytest.raises(ConfigurationError, match=r"nodes='n2:b:70000'.*port.*1 to 65535"):
        parse_nodes("n1:a:11211,n2:b:70000")


@pytest.mark.parametrize("nodes", [123, 1.5, True, b"n1:a:1", [b"n1:a:1"], [None], Node("n1", "a")])
def test_nodes_of_another_type_are_refused(nodes: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^nodes=.*id:host:port"):
        parse_nodes(nodes)


@pytest.mark.parametrize("failover_nodes", [123, True, b"n1", [1], [["n1"]], [None, "n1"]])
def test_failover_nodes_of_another_type_are_refused(failover_nodes: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^failover_nodes=.*n1, n2"):
        parse_failover_nodes(failover_nodes, parse_nodes("n1:a:1,n2:b:2"))


@pytest.mark.parametrize(
    ("setting", "build"),
    [
        ("node_id", lambda: Node(1, "a")),  # type: ignore[arg-type]
        ("node_id", lambda: Node(None, "a")),  # type: ignore[arg-type]
        ("node_id", lambda: Node("n-1", "a")),
        ("host", lambda: Node("n1", 1)),  # type: ignore[arg-type]
        ("host", lambda: Node("n1", "")),
        ("port", lambda: Node("n1", "a", "11211")),  # type: ignore[arg-type]
        ("port", lambda: Node("n1", "a", True)),
        ("port", lambda: Node("n1", "a", 65536)),
        ("weight", lambda: Node("n1", "a", weight="2")),  # type: ignore[arg-type]
    ],
)
def test_a_node_checks_its_own_values(setting: str, build: Callable[[], Node]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert caught.value.setting == setting


def test_nodes_may_be_objects_with_weights() -> None:
    nodes = parse_nodes([Node("big", "a", weight=2.0), "small:b:11211"])
    assert [node.weight for node in nodes] == [2.0, 1.0]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_over_zero(weight: float) -> None:
    with pytest.raises(ConfigurationError, match="weight"):
        Node("n1", "a", weight=weight)


def test_a_unix_socket_has_a_path_that_the_kernel_takes() -> None:
    assert Node("n1", "/" + "x" * 106).is_unix
    for path in ("/" + "x" * 107, "/" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 54):
        with pytest.raises(ConfigurationError, match="at most 107 bytes"):
            Node("n1", path)


def test_a_unix_socket_has_no_port() -> None:
    node = Node("n1", "/run/m.sock", 11211)
    assert node.port == 0
    assert node.label == "n1 (/run/m.sock)"


@pytest.mark.parametrize("text", ["n1", "n1,n2", "n1 n2", "n1, n2", "", None])
def test_failover_nodes_are_named_by_id(text: str | None) -> None:
    nodes = parse_nodes("n1:a:1,n2:b:2,n3:c:3")
    ids = parse_failover_nodes(text, nodes)
    assert list(ids) == [i for i in ("n1", "n2") if text and i in text]


@pytest.mark.parametrize(
    ("nodes", "failover"),
    [
        ("n1:a:1,n2:b:2", "n3"),  # unknown
        ("n1:a:1,n2:b:2", "n1 n2"),  # no primary left
        ("n1:a:1", "n1"),
        ("a:1", "n1"),
    ],
)
def test_failover_nodes_that_leave_no_primary_or_are_unknown_are_refused(nodes: str, failover: str) -> None:
    with pytest.raises(ConfigurationError, match="failover_nodes"):
        parse_failover_nodes(failover, parse_nodes(nodes))
