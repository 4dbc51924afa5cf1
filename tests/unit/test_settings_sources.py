"""What Settings.from_env makes of variables that others have set, or set in part."""

import pytest

from msm_fast import ConfigurationError, Settings, Tls

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
