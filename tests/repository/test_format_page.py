"""docs/format.md: each vector on the page is read, and made again from what the page says alone."""

import hashlib
import re
import struct
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from msm_fast import AttributeMap, SessionId, Settings
from msm_fast._core import codec
from msm_fast._core.keyring import Keyring
from msm_fast._core.record import Record, decode_record, encode_record
from msm_fast.errors import CorruptRecord
from tests.reference import codec as reference_codec
from tests.reference import record as reference

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
RECORDS = {
    name: bytes.fromhex("".join(re.findall(r"^((?:[0-9a-f]{2} ?)+)", lines, re.MULTILINE)))
    for name, lines in re.findall(r"^```hex (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}
ROWS = dict(re.findall(r"^\| (.+?) \| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE))
VALUES = {text.strip("`"): row for text, row in ROWS.items() if text.startswith("`")}
NAMES: dict[str, Any] = {
    kind.__name__: kind for kind in (date, datetime, time, timedelta, timezone, Decimal, Fraction, UUID, ZoneInfo)
}


def said(pattern: str) -> str:
    (found,) = re.findall(pattern, PAGE, re.DOTALL)
    assert isinstance(found, str)
    return found


KEY = said(r"stored under the key\s`(.+?)`").encode()
SECRET = said(r"The secret is `(.+?)`")
CART = eval(said(r"These hold\s`(\{\"user\".+?\})`"))
NOTE = eval(said(r"These hold\s`(\{\"note\".+?\})`"))
HEAD_SIZE = 84


def read(name: str) -> Record:
    keyring = Keyring([SECRET]) if name in ("signed", "encrypted") else None
    return decode_record(RECORDS[name], KEY, keyring=keyring)


def test_the_page_has_vectors_of_every_kind() -> None:
    assert set(RECORDS) == {"plain", "signed", "encrypted", "zlib", "zstd", "tombstone"}
    assert sorted({data[5] for data in RECORDS.values()}) == [0, 1, 2, 4, 8, 16]
    assert {type(eval(text, NAMES)) for text in VALUES} >= codec_types()


def codec_types() -> set[type]:
    """Return what the README says that values may be."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (named,) = re.findall(r"native serializer knows: None, (.+?),\sand types taught", readme, re.DOTALL)
    builtin = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict)}
    builtin |= {kind.__name__: kind for kind in (set, frozenset)}
    return {(builtin | NAMES)[name] for name in re.findall(r"\w+", named)}


@pytest.mark.parametrize("text", VALUES)
def test_a_value_is_written_and_read_as_the_page_says(text: str) -> None:
    value, data = eval(text, NAMES), bytes.fromhex(VALUES[text])
    assert codec.dumps(value) == data
    assert reference_codec.dumps(value) == data
    back = codec.loads(data)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read(name: str) -> None:
    record = read(name)
    expected = {"zlib": NOTE, "zstd": NOTE, "tombstone": {}}.get(name, CART)
    assert dict(AttributeMap.decode(record.body)) == expected
    assert record.is_tombstone is (name == "tombstone")


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_under_no_other_key(name: str) -> None:
    keyring = Keyring([SECRET]) if name in ("signed", "encrypted") else None
    with pytest.raises(CorruptRecord):
        decode_record(RECORDS[name], KEY + b"x", keyring=keyring)


def test_the_fields_are_where_the_table_says() -> None:
    rows = re.findall(r"^\| (\d+) \| ?(\d*) \| (\w+)", PAGE, re.MULTILINE)
    offsets = [int(offset) for offset, _, _ in rows]
    assert offsets == [sum(int(size or 0) for _, size, _ in rows[:i]) for i in range(len(rows))]
    assert offsets[-1] == HEAD_SIZE
    record, plain = read("plain"), RECORDS["plain"]
    found = struct.unpack_from("<QQQIIII8II", plain, 8)
    times = (record.generation, record.created_ms, record.accessed_ms)
    lives = (record.max_inactive_s, record.absolute_lifetime_s)
    assert found[:7] == (*times, *lives, len(CART), len(record.body))
    assert tuple(nonce for nonce in found[7:15] if nonce) == record.lineage
    assert found[15] == record.home


@pytest.mark.parametrize("name", ["plain", "signed", "tombstone"])
def test_a_record_is_written_again(name: str) -> None:
    record = read(name)
    fields = ("generation", "created_ms", "accessed_ms", "max_inactive_s", "absolute_lifetime_s", "is_tombstone")
    data = encode_record(
        KEY,
        record.body,
        **{field: getattr(record, field) for field in fields},
        lineage=record.lineage,
        home=record.home,
        keyring=Keyring([SECRET]) if name == "signed" else None,
    )
    assert data == RECORDS[name]


def test_a_trailer_without_a_key_is_as_described() -> None:
    for name in ("plain", "zlib", "zstd", "tombstone"):
        data = RECORDS[name]
        assert struct.pack("<Q", reference.digest(data[:-8], KEY)) == data[-8:]


def derived(info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=b"msm_fast", info=info).derive(SECRET.encode())


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    digest = hmac.HMAC(key, hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def test_the_keys_are_derived_as_described() -> None:
    assert derived(b"key id")[:2] == bytes.fromhex(ROWS["key id"])
    assert derived(b"signing").hex() == ROWS["signing"]
    assert derived(b"encryption").hex() == ROWS["encryption"]
    assert hmac_sha256(derived(b"encryption"), KEY).hex() == ROWS["the session's own"]


def test_a_signature_is_as_described() -> None:
    data = RECORDS["signed"]
    assert data[6:8] == bytes.fromhex(ROWS["key id"])
    assert hmac_sha256(derived(b"signing"), data[:-32] + KEY) == data[-32:]


def test_an_encryption_is_as_described() -> None:
    data = RECORDS["encrypted"]
    head, sealed, nonce = data[:HEAD_SIZE], data[HEAD_SIZE:-12], data[-12:]
    body = AESGCM(bytes.fromhex(ROWS["the session's own"])).decrypt(nonce, sealed, head + KEY)
    assert body == RECORDS["plain"][HEAD_SIZE:-8]


def test_a_hashed_key_is_as_described() -> None:
    from tests.simulation.clock import VirtualClock
    from tests.simulation.driver import SimulatedDriver
    from tests.simulation.worker import Worker

    prefix, plain = KEY.decode().split(":")
    hashed = said(r"storage key would be\s`(.+?)`")
    digest = hashlib.blake2b(plain.encode(), digest_size=16, person=b"msm_fast id").hexdigest()
    assert hashed == f"{prefix}:{digest.upper()}"
    worker = Worker(SimulatedDriver([], VirtualClock()), Settings.build(hash_ids=True, key_prefix=f"{prefix}:"))
    session_id = SessionId.parse(f"{plain}-n1.w1")
    assert session_id is not None
    assert worker.ctx.storage_key(session_id).decode() == hashed
