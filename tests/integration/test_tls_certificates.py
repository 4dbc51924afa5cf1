"""Certificates on memcached processes that speak TLS: whose is accepted, what is shown, and files that are renewed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msm_fast import ConfigurationError, SessionManager, Tls
from tests.certificates import Authority
from tests.integration.test_manager import wait_until
from tests.integration.test_tls import HOST, MakeManager, authority, keep, make, reason, server, tls_server
from tests.memcached import Memcached
from tests.threaded import drop_connections

__all__ = ["authority", "make", "server"]

pytestmark = pytest.mark.memcached


def test_a_server_that_asks_for_a_certificate_is_shown_one(
    make: MakeManager, authority: Authority, start: Callable[..., Any]
) -> None:
    options = ("ssl_verify_mode=2", f"ssl_ca_cert={authority.file}")
    server = start(tls_server(authority.sign(HOST), *options))
    manager = make(server.address, tls=Tls(ca_file=authority.file, certificate_file=authority.sign("shop")))
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}
    assert reason(make(server.address))


@pytest.mark.parametrize(
    ("shown", "said"), [("none", "CERTIFICATE_REQUIRED"), ("expired", "CERTIFICATE_EXPIRED"), ("other", "UNKNOWN_CA")]
)
def test_a_server_that_does_not_accept_what_it_is_shown_is_quoted(
    make: MakeManager, authority: Authority, start: Callable[..., Any], tmp_path: Path, shown: str, said: str
) -> None:
    server = start(tls_server(authority.sign(HOST), "ssl_verify_mode=2", f"ssl_ca_cert={authority.file}"))
    certificates = {
        "none": None,
        "expired": authority.sign("shop", is_expired=True),
        "other": Authority(tmp_path, "other").sign("shop"),
    }
    why = reason(make(server.address, tls=Tls(ca_file=authority.file, certificate_file=certificates[shown])))
    assert said in why
    assert "tls.certificate_file" in why


def test_a_server_whose_certificate_is_by_somebody_else_is_not_used(
    make: MakeManager, authority: Authority, start: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(Path(authority.file).parent, "stranger")
    server = start(tls_server(stranger.sign(HOST)))
    with caplog.at_level(logging.WARNING, "msm_fast"):
        assert "its certificate is not accepted: unable to get local issuer" in reason(make(server.address))
    assert f"n1 ({server.address})" in caplog.text
    assert "its certificate is not accepted" in caplog.text
    assert "its certificate is not accepted" in reason(make(server.address, tls=True))


def test_a_server_whose_certificate_has_expired_is_not_used(
    make: MakeManager, authority: Authority, start: Callable[..., Any]
) -> None:
    server = start(tls_server(authority.sign(HOST, is_expired=True)))
    assert "certificate has expired" in reason(make(server.address))


def test_a_server_with_another_ones_certificate_is_used_only_if_the_settings_say_so(
    make: MakeManager, authority: Authority, start: Callable[..., Any]
) -> None:
    server = start(tls_server(authority.sign("memcached.internal")))
    assert "IP address mismatch" in reason(make(server.address))
    assert "Hostname mismatch" in reason(make(f"localhost:{server.port}"))
    for more in ({"check_hostname": False}, {"server_hostname": "memcached.internal"}):
        manager = make(server.address, tls=Tls(ca_file=authority.file, **more))  # type: ignore[arg-type]
        assert manager.load(keep(manager, user="ada")) == {"user": "ada"}
    other = Tls(ca_file=authority.file, server_hostname="memcached.external")
    assert "Hostname mismatch" in reason(make(server.address, tls=other))


# -- renewed files


def renew(source: str, target: Path) -> None:
    """Replace target at once by a copy of source, as tools that renew certificates do."""
    fresh = target.with_suffix(".new")
    shutil.copy(source, fresh)
    fresh.replace(target)


def until_up(manager: SessionManager) -> None:
    wait_until(lambda: manager.nodes()[0].is_up, timeout_s=20)


def test_an_authority_that_is_renewed_is_trusted_without_a_restart(
    server: Memcached, make: MakeManager, authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    renew(Authority(tmp_path, "former").file, trusted)
    manager = make(server.address, tls=Tls(ca_file=str(trusted)))
    assert "its certificate is not accepted" in reason(manager)
    renew(authority.file, trusted)
    until_up(manager)
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}


def test_a_client_certificate_that_is_renewed_is_shown_without_a_restart(
    make: MakeManager, authority: Authority, start: Callable[..., Any], tmp_path: Path
) -> None:
    server = start(tls_server(authority.sign(HOST), "ssl_verify_mode=2", f"ssl_ca_cert={authority.file}"))
    shown = tmp_path / "shop.pem"
    renew(authority.sign("shop", is_expired=True), shown)
    manager = make(server.address, tls=Tls(ca_file=authority.file, certificate_file=str(shown)))
    assert reason(manager)
    renew(authority.sign("shop"), shown)
    until_up(manager)
    assert manager.load(keep(manager, user="ada")) == {"user": "ada"}


def test_files_that_are_renewed_but_cannot_be_used_are_told_of_once_and_the_former_stay_in_use(
    server: Memcached, make: MakeManager, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = tmp_path / "ca.pem"
    renew(authority.file, trusted)
    manager = make(server.address, tls=Tls(ca_file=str(trusted)))
    session_id = keep(manager, user="ada")
    trusted.write_text("half a certif")
    with caplog.at_level(logging.INFO, "msm_fast"):
        for _ in range(2):
            drop_connections(manager)
            assert manager.load(session_id) == {"user": "ada"}
        renew(authority.file, trusted)
        drop_connections(manager)
        assert manager.load(session_id) == {"user": "ada"}
    refused, taken = [record for record in caplog.records if record.name == "msm_fast.tls"]
    assert refused.levelno == logging.ERROR
    assert "tls.ca_file" in refused.getMessage()
    assert taken.levelno == logging.INFO


# -- settings


def test_files_that_cannot_be_used_are_refused_at_the_start(
    manager_class: Any, authority: Authority, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    encrypted = authority.sign("shop", password=b"hunter2")
    for setting, tls in [
        ("tls.ca_file", Tls(ca_file="/nowhere/ca.pem")),
        ("tls.ca_file", Tls(ca_file=str(empty))),
        ("tls.certificate_file", Tls(certificate_file="/nowhere/cert.pem")),
        ("tls.certificate_file", Tls(certificate_file=str(empty))),
        ("tls.certificate_file", Tls(certificate_file=authority.file)),
        ("tls.certificate_file", Tls(certificate_file=encrypted)),
        ("tls.key_file", Tls(certificate_file=authority.file, key_file="/nowhere/key.pem")),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            manager_class("n1:127.0.0.1:1", tls=tls)
        assert caught.value.setting == setting, caught.value
