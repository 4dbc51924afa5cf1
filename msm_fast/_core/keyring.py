"""What the secrets of a deployment make of a record: a signature or an encryption that only they can make and check.

Each secret gives several keys and an id, all by HKDF-SHA256, so that none tells anything about another. docs/format.md
has the exact steps, with vectors.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msm_fast.errors import ConfigurationError, CorruptRecord, UnknownFormat

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SECRET_SIZE_MIN", "Keyring"]

SECRET_SIZE_MIN = 16
_SECRETS = (
    f"texts or bytes of at least {SECRET_SIZE_MIN} bytes, not of blanks alone, the first to write with, all to read "
    'with; make one with python -c "import secrets; print(secrets.token_urlsafe(32))"'
)
_HASH = "sha256"
_SALT = b"msm_fast"
_SIGNATURE_SIZE = 32
_TAG_SIZE = 16
_NONCE_SIZE = 12


class _Keys:
    """What comes of a secret; shown by nothing, also where local variables are, as reports of errors have them."""

    __slots__ = ("encryption", "signing")

    def __init__(self, signing: bytes, encryption: bytes) -> None:
        self.signing = signing
        self.encryption = encryption


class Keyring:
    """Seals records with the first of some secrets, and opens what any of them sealed.

    A seal binds all of a record, its head and its storage key included: none can stand in for another. Signing and
    encryption are both opened, whichever is chosen for writing, so that a deployment may go from one to the other.

    secrets: text or bytes. encrypt: seal with AES-256-GCM instead of HMAC-SHA256.
    Raises:  ConfigurationError, which does not name the secret, for one that is too short or none, for two that have
             the same id, and for encryption without the library cryptography.
    Thread-safety: immutable.
    """

    def __init__(self, secrets: Sequence[str | bytes], encrypt: bool = False) -> None:
        self._keys: dict[int, _Keys] = {}
        for secret in secrets:
            key_id, keys = _derive(_checked(secret))
            if key_id in self._keys:
                raise ConfigurationError("secrets", "…", f"two secrets with the same id: replace one. {_SECRETS}")
            self._keys[key_id] = keys
        if not self._keys:
            raise ConfigurationError("secrets", "()", _SECRETS)
        self.key_id = next(iter(self._keys))
        self.encrypts = encrypt
        self.seal_size = _TAG_SIZE + _NONCE_SIZE if encrypt else _SIGNATURE_SIZE
        if encrypt:
            try:
                _cipher(self._keys[self.key_id], b"")
            except ImportError as error:
                accepted = "the library cryptography, which the extra crypto installs: pip install 'msm-fast[crypto]'"
                raise ConfigurationError("encrypt", True, accepted) from error

    def seal(self, head: bytes, body: bytes, storage_key: bytes) -> bytes:
        """Return the record of a head, which names this keyring's way of sealing and its key, and a body."""
        keys = self._keys[self.key_id]
        if not self.encrypts:
            signed = head + body
            return signed + hmac.digest(keys.signing, signed + storage_key, _HASH)
        nonce = os.urandom(_NONCE_SIZE)
        return head + _cipher(keys, storage_key).encrypt(nonce, body, head + storage_key) + nonce

    def open(self, head: bytes, sealed: bytes, storage_key: bytes, key_id: int, is_encrypted: bool) -> bytes:
        """Return the body of a record; its head says by which key it was sealed, and how. sealed: all that follows.

        Raises:  UnknownFormat for a key that is not among these, CorruptRecord for what none of them sealed so.
        """
        keys = self._keys.get(key_id)
        if keys is None:
            raise UnknownFormat(f"a record of key {key_id:04x}, which none of the configured secrets has", 6)
        if not is_encrypted:
            body, signature = sealed[:-_SIGNATURE_SIZE], sealed[-_SIGNATURE_SIZE:]
            if hmac.compare_digest(signature, hmac.digest(keys.signing, head + body + storage_key, _HASH)):
                return body
            raise _forged(len(head) + len(body))
        try:
            cipher = _cipher(keys, storage_key)
        except ImportError as error:
            raise UnknownFormat("an encrypted record, and the library cryptography is not installed", 5) from error
        from cryptography.exceptions import InvalidTag

        try:
            return cipher.decrypt(sealed[-_NONCE_SIZE:], sealed[:-_NONCE_SIZE], head + storage_key)
        except InvalidTag:
            raise _forged(len(head) + len(sealed) - _NONCE_SIZE - _TAG_SIZE) from None


def _checked(secret: object) -> bytes:
    is_blank = isinstance(secret, (str, bytes)) and secret.isspace()
    if isinstance(secret, str):
        secret = secret.encode("utf-8", "surrogatepass")
    if is_blank or not isinstance(secret, bytes) or len(secret) < SECRET_SIZE_MIN:
        raise ConfigurationError("secrets", "…", _SECRETS)
    return secret


def _derive(secret: bytes) -> tuple[int, _Keys]:
    """Return a secret's id, which is never 0, and its keys.

    Source: RFC 5869, with one block of output for each use.
    """
    extracted = hmac.digest(_SALT, secret, _HASH)
    key_id, *keys = (hmac.digest(extracted, use + b"\1", _HASH) for use in (b"key id", b"signing", b"encryption"))
    return int.from_bytes(key_id[:2], "little") or 1, _Keys(*keys)


def _cipher(keys: _Keys, storage_key: bytes) -> AESGCM:
    """Return the cipher of one session.

    Each has a key of its own: no number of sessions and writes brings random nonces of 96 bits near their limit.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hmac.digest(keys.encryption, storage_key, _HASH))


def _forged(offset: int) -> CorruptRecord:
    return CorruptRecord("the trailer does not match: damaged, forged, or the record of another key", offset)
