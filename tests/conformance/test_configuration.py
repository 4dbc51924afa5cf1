"""Settings: nodes, failover nodes and key prefixes, also as the Java system writes them."""

from typing import Any

import pytest

from msm_fast import ConfigurationError, DistributionState, Node, SessionId, SessionManager, Settings
from tests.conformance.traffic import Traffic
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_saving import read
from tests.simulation.worker import Worker, make_settings

TWO = "n1:localhost:11211,n2:localhost:11212"
THREE = f"{TWO},n3:localhost:11213"


def from_java(**attributes: str) -> Settings:
    return Settings.from_msm({"sticky": "false", "sessionBackupAsync": "false", **attributes})


@pytest.mark.parametrize("nodes", [None, "", " "])
def test_msm_018_to_019_without_nodes_sessions_are_kept_in_the_process(nodes: str | None) -> None:
    with SessionManager(nodes) as manager:
        assert manager.distribution.state is DistributionState.LOCAL
        session = manager.create()
        session["user"] = "ada"
        assert manager.save(session).status == "local"


@pytest.mark.parametrize("nodes", ["localhost:11211", "n1:localhost:11211"])
def test_msm_020_to_021_a_node_that_is_alone_cannot_be_a_failover_node(nodes: str) -> None:
    with pytest.raises(ConfigurationError, match="failover_nodes"):
        Settings.build(nodes, failover_nodes="n1")


@pytest.mark.parametrize(
    ("nodes", "ids"),
    [
        ("localhost:11211", [""]),
        ("n1:localhost:11211", ["n1"]),
        (TWO, ["n1", "n2"]),
        (TWO.replace(",", " "), ["n1", "n2"]),
        (TWO.replace(",", "   "), ["n1", "n2"]),
        (TWO.replace(",", ", "), ["n1", "n2"]),
    ],
)
def test_msm_023_080_nodes_are_separated_by_commas_or_blanks(nodes: str, ids: list[str]) -> None:
    assert [node.node_id for node in Settings.build(nodes).nodes] == ids
    assert [node.node_id for node in from_java(memcachedNodes=nodes).nodes] == ids


@pytest.mark.parametrize(
    ("nodes", "failover", "primaries"),
    [
        ("localhost:11211", None, {""}),
        ("n1:localhost:11211", None, {"n1"}),
        (TWO, "n1", {"n2"}),
        (THREE, "n1,n2", {"n3"}),
        (THREE, "n1 n2", {"n3"}),
    ],
)
def test_msm_024_new_sessions_go_to_the_nodes_that_are_not_for_failover(
    nodes: str, failover: str | None, primaries: set[str]
) -> None:
    settings = Settings.build(nodes, failover_nodes=failover)
    driver = SimulatedDriver([node.node_id for node in settings.nodes], VirtualClock())
    worker = Worker(driver, settings)
    assert {SessionId(worker.store(user="ada")).node or "" for _ in range(40)} == primaries


@pytest.mark.parametrize(
    ("failover", "ids"),
    [("n1", ("n1",)), ("n1,n2", ("n1", "n2")), ("n1 n2", ("n1", "n2")), ("n1, n2", ("n1", "n2")), ("", ()), (None, ())],
)
def test_msm_025_081_failover_nodes_are_separated_by_commas_or_blanks(
    failover: str | None, ids: tuple[str, ...]
) -> None:
    assert Settings.build(THREE, failover_nodes=failover).failover_nodes == ids
    if failover is not None:
        assert from_java(memcachedNodes=THREE, failoverNodes=failover).failover_nodes == ids


@pytest.mark.parametrize(("nodes", "has_node"), [("localhost:11211", False), ("n1:localhost:11211", True), (TWO, True)])
def test_msm_026_ids_name_their_node_unless_it_has_no_name(nodes: str, has_node: bool) -> None:
    with SessionManager(nodes) as manager:
        session_id = SessionId.parse(manager.create().id)
        assert session_id is not None
        assert (session_id.node is not None) == has_node


def test_msm_027_a_node_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="host"):
        Node("n1", "")


def test_msm_028_031_all_nodes_are_listed_in_order_with_their_addresses() -> None:
    with SessionManager(THREE, failover_nodes="n1") as manager:
        assert [(status.node_id, status.address, status.is_failover) for status in manager.nodes()] == [
            ("n1", "localhost:11211", True),
            ("n2", "localhost:11212", False),
            ("n3", "localhost:11213", False),
        ]


@pytest.mark.parametrize(
    ("nodes", "session_id", "is_asked_for"),
    [
        ("127.0.0.1:11211", "0123456789abcdef" * 2, True),
        ("n1:127.0.0.1:11211", "123456", False),
        ("n1:127.0.0.1:11211", "0123456789abcdef" * 2 + "-n1", True),
    ],
)
def test_msm_082_an_id_names_a_node_where_nodes_have_names(nodes: str, session_id: str, is_asked_for: bool) -> None:
    settings = Settings.build(nodes)
    driver = SimulatedDriver([node.node_id for node in settings.nodes], VirtualClock())
    traffic = Traffic(driver)
    assert Worker(driver, settings).load(session_id) is None
    assert (traffic.round_trips > 0) == is_asked_for


@pytest.mark.parametrize("failover", ["n1 n2", "n1,n2", "n2 n1 n2"])
def test_msm_189_failover_nodes_that_leave_no_primary_are_refused(failover: str) -> None:
    with pytest.raises(ConfigurationError, match=r"failover_nodes.*not a failover node"):
        Settings.build(TWO, failover_nodes=failover)


# -- the prefix of keys


def keys_with(settings: Settings) -> set[bytes]:
    """Return the keys under which a session "foo" is stored."""
    driver = SimulatedDriver([node.node_id for node in settings.nodes], VirtualClock())
    worker = Worker(driver, settings)
    session = worker.create(user="ada")
    session.state.session_id = SessionId("foo-n1")
    worker.save(session)
    return set().union(*(node.server.keys() for node in driver.nodes.values()))


@pytest.mark.parametrize("prefix", [None, ""])
def test_msm_039_without_a_prefix_the_key_is_the_plain_id(prefix: str | None) -> None:
    attributes = {} if prefix is None else {"storageKeyPrefix": prefix}
    assert keys_with(from_java(memcachedNodes=TWO, **attributes)) == {b"foo"}


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("static:foo", b"foo_foo"),
        ("static:x", b"x_foo"),
        ("static:a_b", b"a_b_foo"),
        ("static:x,static:y", b"x:y_foo"),
        ("static:lock", b"lock_foo"),
    ],
)
def test_msm_040_to_041_a_static_prefix_stands_before_the_key(prefix: str, key: bytes) -> None:
    assert keys_with(from_java(memcachedNodes=TWO, storageKeyPrefix=prefix)) == {key}


def test_msm_046_outside_a_container_there_is_no_webapp_version() -> None:
    assert keys_with(from_java(memcachedNodes=TWO, storageKeyPrefix="webappVersion")) == {b"foo"}
    assert keys_with(from_java(memcachedNodes=TWO, storageKeyPrefix="webappVersion,static:v")) == {b"v_foo"}


@pytest.mark.parametrize("prefix", ["www.example.com_", "my-app_", "1.0_", "hst:/ctxt_", "lock:", "bak:"])
def test_msm_181_any_prefix_works_with_several_nodes(prefix: str) -> None:
    driver = SimulatedDriver(["n1", "n2", "n3"], VirtualClock())
    settings: Any = make_settings(3, key_prefix=prefix)
    ids = [Worker(driver, settings).store(n=n) for n in range(10)]
    driver.nodes["n1"].fault = "refused"
    for n, session_id in enumerate(ids):
        assert read(Worker(driver, settings), session_id) == {"n": n}
