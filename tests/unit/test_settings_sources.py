"""Settings from the environment, a mapping, a TOML file, and the attributes of the Java system."""

import logging
from pathlib import Path

import pytest

from msm_fast import ConfigurationError, Retry, Settings, Timeouts, Tls

SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    "text",
    [
        f"[{SECRET},{SECRET}2]",  # the shell has taken the quotes
        f'["{SECRET}","{SECRET}2"',
        f' ["{SECRET}",]',
        f'["{SECRET}", 7]',
        f'[["{SECRET}"]]',
        f"[{SECRET}",
    ],
)
def test_a_list_of_secrets_that_is_none_is_not_taken_for_one_secret(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"secrets=.*JSON") as caught:
        Settings.from_env({"MSM_FAST_SECRETS": text})
    assert SECRET not in str(caught.value)


def test_blanks_around_secrets_in_the_environment_are_none_of_theirs() -> None:
    for text in (SECRET, f" {SECRET}\n", f'\n ["{SECRET}"] '):
        assert Settings.from_env({"MSM_FAST_SECRETS": text}).secrets == (SECRET,)


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_no_settings() -> None:
    environ = {
        "MSM_FAST_SERVICE_HOST": "10.0.0.1",
        "MSM_FAST_SERVICE_PORT": "11211",
        "MSM_FAST_SERVICE_PORT_MEMCACHED_1": "11211",
        "MSM_FAST_PORT": "tcp://10.0.0.1:11211",
        "MSM_FAST_PORT_11211_TCP": "tcp://10.0.0.1:11211",
        "MSM_FAST_PORT_11211_TCP_PROTO": "tcp",
        "MSM_FAST_PORT_11211_TCP_PORT": "11211",
        "MSM_FAST_PORT_11211_TCP_ADDR": "10.0.0.1",
        "MSM_FAST_PORT_53_UDP_ADDR": "10.0.0.1",
        "MSM_FAST_MEMCACHED_SERVICE_HOST": "10.0.0.1",
        "MSM_FAST_MEMCACHED_PORT": "tcp://10.0.0.1:11211",
        "MSM_FAST_MEMCACHED_PORT_11211_TCP_ADDR": "10.0.0.1",
        "MSM_FAST_BUILD": "release",  # of setup.py
    }
    assert Settings.from_env({**environ, "MSM_FAST_STICKY": "true"}) == Settings.build(sticky=True)
    for name in ("SERVICE", "SERVICE_HOSTS", "PORTS", "PORT_TCP", "PORT_11211_TCP_HOST", "BUILDS"):
        with pytest.raises(ConfigurationError, match=f"^{name.lower()}="):
            Settings.from_env({f"MSM_FAST_{name}": "10.0.0.1"})
    with pytest.raises(ConfigurationError, match=r"^port="):
        Settings.from_env({"MSM_FAST_PORT": "11211"})


@pytest.mark.parametrize(("text", "value"), [("True", True), ("TRUE", True), ("False", False), ("fAlSe", False)])
def test_true_and_false_may_be_written_in_any_case(text: str, value: bool) -> None:
    environ = {"MSM_FAST_STICKY": text, "MSM_FAST_TLS": "True", "MSM_FAST_TLS_CHECK_HOSTNAME": text}
    assert Settings.from_env(environ) == Settings.build(sticky=value, tls=Tls(check_hostname=value))
    with pytest.raises(ConfigurationError, match="sticky"):
        Settings.from_env({"MSM_FAST_STICKY": "yes"})
    assert Settings.from_env({"MSM_FAST_KEY_PREFIX": text}).key_prefix == text


def test_settings_come_from_the_environment() -> None:
    environ = {
        "MSM_FAST_NODES": "n1:a:1,n2:b:2",
        "MSM_FAST_FAILOVER_NODES": "n2",
        "MSM_FAST_MAX_INACTIVE": "60",
        "MSM_FAST_ABSOLUTE_LIFETIME": "null",
        "MSM_FAST_TIMEOUTS_REQUEST": "0.5",
        "MSM_FAST_KEY_PREFIX": "007",
        "PATH": "/bin",
    }
    assert Settings.from_env(environ) == Settings.build(
        "n1:a:1,n2:b:2", failover_nodes="n2", max_inactive=60, timeouts=Timeouts(request=0.5), key_prefix="007"
    )


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nodez"):
        Settings.from_env({"MSM_FAST_NODEZ": "n1:a:1"})
    with pytest.raises(ConfigurationError, match=r"timeouts\.total"):
        Settings.from_env({"MSM_FAST_TIMEOUTS_TOTAL": "1"})


def test_settings_come_from_a_mapping() -> None:
    mapping = {"nodes": "n1:a:1,n2:b:2", "timeouts": {"request": 0.5}, "retry": Retry(attempts=2)}
    expected = Settings.build("n1:a:1,n2:b:2", timeouts=Timeouts(request=0.5), retry=Retry(attempts=2))
    assert Settings.from_mapping(mapping) == expected
    assert Settings.from_mapping({}) == Settings()
    for wrong in ({"timeout": 1}, {"timeouts": {"requests": 1}}):
        with pytest.raises(ConfigurationError, match="timeout"):
            Settings.from_mapping(wrong)


def test_settings_come_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text(
        '[msm_fast]\nnodes = ["n1:a:1", "n2:b:2"]\nreplicas = 1\n[msm_fast.timeouts]\nrequest = 0.5\n[other]\nx = 1\n'
    )
    assert Settings.from_toml(path) == Settings.build("n1:a:1,n2:b:2", timeouts=Timeouts(request=0.5))


@pytest.mark.parametrize("text", [None, "not toml [", "[other]\nx = 1\n"])
def test_a_toml_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "app.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"app\.toml"):
        Settings.from_toml(path)


JAVA = {"sticky": "false", "sessionBackupAsync": "false", "memcachedNodes": "n1:a:1,n2:b:2"}


def test_settings_come_from_the_java_attributes(caplog: pytest.LogCaptureFixture) -> None:
    attributes = {
        **JAVA,
        "failoverNodes": "n2",
        "maxInactiveInterval": "-1",
        "operationTimeout": "200",
        "storageKeyPrefix": "static:shop,webappVersion",
        "lockingMode": "none",
        "sessionAttributeFilter": "^(foo|bar)$",
        "backupThreadCount": "4",
    }
    with caplog.at_level(logging.WARNING, "msm_fast"):
        settings = Settings.from_msm(attributes)
    assert settings == Settings.build(
        "n1:a:1,n2:b:2",
        failover_nodes="n2",
        locking="merge",
        max_inactive=None,
        timeouts=Timeouts(operation=0.2),
        key_prefix="shop_",
        attribute_filter="^(foo|bar)$",
    )
    assert "backupThreadCount has no meaning" in caplog.text


def test_what_the_java_system_does_by_default_is_done_where_nothing_else_is_said() -> None:
    settings = Settings.from_msm({"memcachedNodes": "n1:a:1,n2:b:2"})
    assert settings.sticky
    assert settings.backup == "async"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("memcachedNodez", "x"),
        ("sticky", "maybe"),
        ("operationTimeout", "soon"),
        ("lockingMode", "app"),
        ("storageKeyPrefix", "host"),
    ],
)
def test_a_wrong_java_attribute_is_refused_by_its_java_name(attribute: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_msm({**JAVA, attribute: value})
    assert caught.value.setting == attribute
