"""What Settings accept and refuse, and that no secret is shown."""

import dataclasses
import math
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from msm_fast import Breaker, ConfigurationError, NearCacheSettings, Node, Reconnect, Retry, Settings, Timeouts, Tls
from tests.unit.test_settings_sources import JAVA


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().replicas = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("sticky", "yes"),
        ("max_inactive", 0),
        ("max_inactive", -1),
        ("max_inactive", "1800"),
        ("max_inactive", True),
        ("max_inactive", 2**32),
        ("absolute_lifetime", 0),
        ("replicas", -1),
        ("replicas", 1.5),
        ("locking", "sometimes"),
        ("locking", "uri:"),
        ("locking", "uri:/cart(.*"),
        ("locking", None),
        ("ignore_requests", ".*[.(png|css)"),
        ("ignore_requests", 7),
        ("key_prefix", "msm:lock:"),
        ("on_conflict", "ignore"),
        ("on_cluster_lost", "panic"),
        ("on_unserializable", "shrug"),
        ("timeouts", 0.25),
        ("key_prefix", "with blank"),
        ("key_prefix", "line\r\nbreak"),
        ("key_prefix", "x" * 81),
        ("serializer", "yaml"),
        ("on_stop", "exit"),
        ("blacklist_path", ""),
        ("blacklist_path", "a\0b"),
        ("attribute_filter", ""),
        ("attribute_filter", "(cart"),
        ("attribute_filter", b"cart"),
        ("encrypt", True),
        ("encrypt", "yes"),
        ("compress_over", -1),
        ("compress_over", 1.5),
        ("compress_over", True),
        ("compression", "lzma"),
        ("hash_ids", 1),
        ("tls", "yes"),
        ("tls", 1),
        ("tls", Timeouts()),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_accepted(setting: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.build(**{setting: value})
    assert caught.value.setting == setting
    assert caught.value.value == value
    assert caught.value.accepted


@pytest.mark.parametrize("setting", ["max_inactive", "absolute_lifetime"])
@pytest.mark.parametrize("value", [0, 0.5, -1, "1800", True, math.nan, math.inf, 2**32, timedelta(minutes=30)])
def test_whatever_is_wrong_with_a_lifetime_it_is_said_from_where_to_where_and_how_to_have_none(
    setting: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting}=.* is not accepted: 1 to 4294967295 seconds, or None"):
        Settings.build(**{setting: value})


def test_a_pathlib_path_is_a_path_of_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert Settings.build(blacklist_path=path).blacklist_path == str(path)
    assert Settings.build(tls=Tls(ca_file=path)).tls == Tls(ca_file=str(path))
    assert Tls(certificate_file=path, key_file=path) == Tls(certificate_file=str(path), key_file=str(path))


SECRET = "a secret of some length"


@pytest.mark.parametrize("secrets", ["hunter2", ("hunter2",), (SECRET, "hunter2"), (SECRET, SECRET), {SECRET}, 7])
def test_secrets_that_cannot_be_used_are_refused_and_stand_in_no_error(secrets: Any) -> None:
    with pytest.raises(ConfigurationError, match="secrets") as caught:
        Settings.build(secrets=secrets)
    assert "hunter2" not in str(caught.value)
    assert SECRET not in str(caught.value)


PASSWORD = "correct-horse-battery"


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: Settings.build(secret=PASSWORD), "secret"),
        (lambda: Settings.from_env({"MSM_FAST_SECRET": PASSWORD}), "secret"),
        (lambda: Settings.from_env({"MSM_FAST_ENCRYPT": PASSWORD}), "encrypt"),
        (lambda: Settings.build(hash_ids=PASSWORD.encode()), "hash_ids"),
        (lambda: Settings.from_env({"MSM_FAST_TLS_PASSWORD": PASSWORD}), r"tls\.password"),
        (
            lambda: Settings.from_env({"MSM_FAST_TLS": f'{{"password": "{PASSWORD}"}}', "MSM_FAST_TLS_CA_FILE": "x"}),
            "tls",
        ),
        (lambda: Settings.from_mapping({"tls": {"ca_file": "x", "password": PASSWORD}}), r"tls\.password"),
        (lambda: Settings.build(tls={"password": PASSWORD}), "tls"),
        (lambda: Settings.from_msm({**JAVA, "password": PASSWORD}), "password"),
        (lambda: Settings.build(local_store=f"postgresql://ada:{PASSWORD}@db/shop"), "local_store"),
        (lambda: Settings.build(f"n1:ada:{PASSWORD}@10.0.0.1:11211"), "nodes"),
        (lambda: Settings.build([f"n1:ada:{PASSWORD}@10.0.0.1:11211"]), "nodes"),
        (lambda: Settings.build("n1:ada:two,n2:parts@10.0.0.1:11211"), "nodes"),
        (lambda: Settings.build("n1:a:1,n2:b:2", failover_nodes=f"n2:ada:{PASSWORD}@b"), "failover_nodes"),
    ],
)
def test_what_may_be_a_secret_in_a_wrong_place_stands_in_no_error(build: Any, setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{setting}=") as caught:
        build()
    for shown in (str(caught.value), repr(caught.value.value)):
        assert PASSWORD not in shown
        assert "two" not in shown
        assert "parts" not in shown


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(Settings.build(secrets=SECRET))


def test_one_secret_needs_no_tuple() -> None:
    for one in (SECRET, SECRET.encode(), [SECRET]):
        assert len(Settings.build(secrets=one).secrets) == 1


def test_how_records_are_written_is_set_everywhere(tmp_path: Path) -> None:
    other = "12345678901234567890"
    expected = Settings.build(
        secrets=(other, SECRET), encrypt=True, compress_over=1024, compression="zstd", hash_ids=True
    )
    environ = {
        "MSM_FAST_SECRETS": f'["{other}", "{SECRET}"]',
        "MSM_FAST_ENCRYPT": "true",
        "MSM_FAST_COMPRESS_OVER": "1024",
        "MSM_FAST_COMPRESSION": "zstd",
        "MSM_FAST_HASH_IDS": "true",
    }
    assert Settings.from_env(environ) == expected
    assert Settings.from_env({"MSM_FAST_SECRETS": other}) == Settings.build(secrets=(other,))
    path = tmp_path / "app.toml"
    path.write_text(
        f'[msm_fast]\nsecrets = ["{other}", "{SECRET}"]\nencrypt = true\n'
        'compress_over = 1024\ncompression = "zstd"\nhash_ids = true\n'
    )
    assert Settings.from_toml(path) == expected


@pytest.mark.parametrize("secret", [" " * 20, "\t\n\r " * 10, b" " * 20, "\u3000" * 20])
def test_a_secret_of_blanks_alone_is_refused(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="secrets"):
        Settings.build(secrets=secret)
    with pytest.raises(ConfigurationError, match="secrets"):
        Settings.build(secrets=(PASSWORD, secret))


def test_tls_is_off_unless_it_is_asked_for() -> None:
    assert Settings().tls is None
    assert Settings.build(tls=False).tls is None
    assert Settings.build(tls=True).tls == Tls()
    context = ssl.create_default_context()
    assert Settings.build(tls=context).tls is context


def test_tls_and_credentials_are_set_everywhere(tmp_path: Path) -> None:
    expected = Settings.build(tls=Tls(ca_file="/etc/ca.pem", check_hostname=False), credentials="ada:1234")
    environ = {
        "MSM_FAST_TLS_CA_FILE": "/etc/ca.pem",
        "MSM_FAST_TLS_CHECK_HOSTNAME": "false",
        "MSM_FAST_CREDENTIALS": "ada:1234",
    }
    assert Settings.from_env(environ) == expected
    assert Settings.from_env({"MSM_FAST_TLS": "true", **environ}) == expected
    assert Settings.from_env({**environ, "MSM_FAST_TLS": "false"}).tls is None
    assert Settings.from_env({"MSM_FAST_TLS": "true"}).tls == Tls()
    path = tmp_path / "app.toml"
    path.write_text('[msm_fast]\ncredentials = "ada:1234"\ntls = {ca_file = "/etc/ca.pem", check_hostname = false}\n')
    assert Settings.from_toml(path) == expected
    path.write_text("[msm_fast]\ntls = true\n")
    assert Settings.from_toml(path).tls == Tls()


def test_a_variable_for_a_part_and_one_for_the_whole_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="timeouts_request"):
        Settings.from_env({"MSM_FAST_TIMEOUTS": "3", "MSM_FAST_TIMEOUTS_REQUEST": "1"})
    with pytest.raises(ConfigurationError, match="tls_ca_file"):
        Settings.from_env({"MSM_FAST_TLS_CA_FILE": "/etc/ca.pem", "MSM_FAST_TLS": "/etc/ca.pem"})


@pytest.mark.parametrize(
    "credentials",
    [
        *("", "hunter2", ":hunter2", "ada:", "ada:hunter2 x", "a da:hunter2", "ada:hunter2\r\n", "ada:hunter2\0"),
        *("ada:" + "hunter2" * 40, b"ada:hunter2", ("ada", "hunter2"), 7),
    ],
)
def test_credentials_that_cannot_be_sent_are_refused_and_stand_in_no_error(credentials: Any) -> None:
    with pytest.raises(ConfigurationError, match="credentials") as caught:
        Settings.build(credentials=credentials)
    assert "hunter2" not in str(caught.value)
    assert "authfile" in caught.value.accepted


def test_credentials_are_not_shown() -> None:
    assert "hunter2" not in repr(Settings.build(credentials="ada:hunter2"))


def test_pickle_is_refused_without_secrets() -> None:
    for serializer in ("pickle", ("native", "pickle")):
        with pytest.raises(ConfigurationError, match="secrets"):
            Settings.build(serializer=serializer)
        Settings.build(serializer=serializer, secrets=SECRET)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Timeouts(request=0),
        lambda: Timeouts(connect=float("nan")),
        lambda: Timeouts(lock=0),
        lambda: Timeouts(operation=1e7),
        lambda: Timeouts(lock_ttl=0.5),
        lambda: Timeouts(busy_poll=-0.001),
        lambda: Timeouts(busy_poll=1),
        lambda: Timeouts(busy_poll="no"),  # type: ignore[arg-type]
        lambda: Retry(attempts=-1),
        lambda: Retry(budget=2),
        lambda: Breaker(timeouts=0),
        lambda: Reconnect(factor=0.5),
        lambda: Reconnect(first=-1),
        lambda: Reconnect(first=1e12),
        lambda: Reconnect(cap=24 * 3600 + 1),
        lambda: Reconnect(replay_rate=1e-300),
        lambda: Tls(ca_file=""),
        lambda: Tls(ca_file=7),  # type: ignore[arg-type]
        lambda: Tls(key_file="key.pem"),
        lambda: Tls(check_hostname="no"),  # type: ignore[arg-type]
        lambda: Tls(server_hostname=".internal"),
        lambda: NearCacheSettings(max_sessions=0),
        lambda: NearCacheSettings(max_sessions=2**63),
        lambda: NearCacheSettings(max_bytes=2**63),
        lambda: NearCacheSettings(validate_over=0),
        lambda: NearCacheSettings(validate_over=2**63),
    ],
)
def test_each_part_checks_its_own_values(build: Any) -> None:
    with pytest.raises(ConfigurationError):
        build()


def test_what_cannot_be_stored_has_its_settings_everywhere(tmp_path: Path) -> None:
    expected = Settings.build(
        on_unserializable="blacklist", blacklist_path="7", attribute_filter="^(cart|user.*)$", max_inactive=60
    )
    environ = {
        "MSM_FAST_ON_UNSERIALIZABLE": "blacklist",
        "MSM_FAST_BLACKLIST_PATH": "7",
        "MSM_FAST_ATTRIBUTE_FILTER": "^(cart|user.*)$",
        "MSM_FAST_MAX_INACTIVE": "60",
    }
    assert Settings.from_env(environ) == expected
    path = tmp_path / "app.toml"
    path.write_text(
        '[msm_fast]\non_unserializable = "blacklist"\nblacklist_path = "7"\n'
        'attribute_filter = "^(cart|user.*)$"\nmax_inactive = 60\n'
    )
    assert Settings.from_toml(path) == expected


@pytest.mark.parametrize("policy", ["stop_application", "local_session", "stop_distribution", "blacklist"])
def test_each_policy_for_what_cannot_be_stored_is_accepted(policy: str) -> None:
    assert Settings.build(on_unserializable=policy).on_unserializable == policy


def test_an_unknown_setting_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"nodez.*absolute_lifetime.*nodes") as caught:
        Settings.build(nodez="n1:a:1")
    assert caught.value.setting == "nodez"


@pytest.mark.parametrize(("sticky", "backup"), [(False, "sync"), (True, "async")])
def test_backups_are_written_behind_the_request_by_default_where_memory_is_the_truth(sticky: bool, backup: str) -> None:
    assert Settings.build(sticky=sticky).backup == backup
    assert Settings.build(sticky=sticky, backup="sync").backup == "sync"


@pytest.mark.parametrize("route", ["", "a.b", "a b", "x" * 65, 1])
def test_a_route_that_could_not_stand_in_an_id_is_refused(route: Any) -> None:
    with pytest.raises(ConfigurationError, match="route"):
        Settings.build(route=route)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("nodes", {"nodes": ["no node"]}),
        ("nodes", {"nodes": (Node("n1", "10.0.0.1"), Node("n1", "10.0.0.2"))}),
        ("failover_nodes", {"nodes": "n1:10.0.0.1:1,n2:10.0.0.2:1", "failover_nodes": "n10"}),
    ],
)
def test_nodes_are_checked_however_settings_are_made(setting: str, values: dict[str, Any]) -> None:
    for make in (Settings, Settings.build, lambda **changes: dataclasses.replace(Settings(), **changes)):
        with pytest.raises(ConfigurationError) as caught:
            make(**values)
        assert caught.value.setting == setting


def test_nodes_may_be_text_however_settings_are_made() -> None:
    values: dict[str, Any] = {"nodes": "n1:10.0.0.1:1,n2:10.0.0.2:1", "failover_nodes": "n2"}
    made = Settings(**values)
    assert made == Settings.build(**values) == dataclasses.replace(made, sticky=False)
    assert made.failover_nodes == ("n2",)
