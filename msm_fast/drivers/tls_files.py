"""The TLS context that settings ask for, which follows its files when they are renewed."""

from __future__ import annotations

import os
import ssl

from msm_fast.errors import ConfigurationError
from msm_fast.logs import Log
from msm_fast.policies import Tls

__all__ = ["TlsFiles"]

_log = Log("msm_fast.tls")


class TlsFiles:
    """The files that a Tls names, and the context made of them: what each new connection begins with.

    Certificates are renewed while processes live. What cannot be used is told of once, and the former stay in use.
    Raises: ConfigurationError: the files cannot be used when the process starts.
    """

    __slots__ = ("_context", "_paths", "_seen", "_tls")

    def __init__(self, tls: Tls) -> None:
        trusted = tls.ca_file or ssl.get_default_verify_paths().cafile
        self._tls = tls
        self._paths = [os.fspath(path) for path in (trusted, tls.certificate_file, tls.key_file) if path is not None]
        self._seen = [_version(path) for path in self._paths]  # before they are read: what comes later is noticed
        self._context = _context(tls)

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now, or as they were when they could last be used."""
        versions = [_version(path) for path in self._paths]
        if versions != self._seen:
            self._seen = versions
            try:
                self._context = _context(self._tls)
                _log.info("the files of tls were renewed; new connections use them")
            except ConfigurationError as error:
                _log.error("the files of tls were changed; the former ones stay in use: %s", error)
        return self._context


def _version(path: str) -> tuple[int, ...] | None:
    """Return what differs when a file is written or replaced; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:  # ssl.SSLError too
        raise ConfigurationError("tls.ca_file", tls.ca_file, f"a file of certificates, as PEM ({error})") from error
    context.check_hostname = tls.check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if tls.certificate_file is not None:
        _load_certificate(context, tls)
    return context


def _load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    assert tls.certificate_file is not None
    for name, path in (("tls.certificate_file", tls.certificate_file), ("tls.key_file", tls.key_file)):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigurationError(name, path, "a file that is there and that this user may read")
    try:
        # Without this function OpenSSL would ask for a password on the terminal, and wait.
        context.load_cert_chain(tls.certificate_file, tls.key_file, password=_no_password)
    except (OSError, ValueError) as error:
        accepted = f"a certificate, as PEM, whose key is there or in key_file and needs no password ({error})"
        raise ConfigurationError("tls.certificate_file", tls.certificate_file, accepted) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted")
