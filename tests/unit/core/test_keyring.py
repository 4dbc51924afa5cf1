import sys
import traceback

import pytest

from msm_fast._core import keyring as keyring_module
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.compression import Compressor
from msm_fast._core.keyring import Keyring
from msm_fast._core.record import decode_record, encode_record
from msm_fast.errors import ConfigurationError, CorruptRecord, UnknownFormat
from tests.reference import record as reference

KEY = b"s:0123456789abcdef"
OLD, NEW = "an old secret of some length", b"a new secret of some length"
BODY, _ = AttributeMap({"user": 42, "cart": [1, "two"], "note": "long " * 40}).encode()
MODES = pytest.mark.parametrize("encrypt", [False, True], ids=["signed", "encrypted"])


def sealed(keyring, **changes):
    fields = {"generation": 7, "created_ms": 1, "accessed_ms": 2, "max_inactive_s": 1800}
    return encode_record(KEY, BODY, **(fields | changes), keyring=keyring)


def with_digest(data):
    """Make of a sealed record one without a key, as somebody would who has none."""
    plain = bytearray(encode_record(KEY, BODY, generation=7, created_ms=1, accessed_ms=2))
    plain[8:84] = data[8:44] + plain[44:48] + data[48:84]
    return bytes(plain[:-8]) + reference.digest(bytes(plain[:-8]), KEY).to_bytes(8, "little")


@MODES
def test_a_sealed_record_comes_back_as_it_was(encrypt):
    keyring = Keyring([NEW], encrypt)
    back = decode_record(sealed(keyring, lineage=(9, 8), home=5), KEY, keyring=keyring)
    assert (back.generation, back.max_inactive_s, back.lineage, back.home, back.body) == (7, 1800, (9, 8), 5, BODY)
    assert (back.key_id, back.is_encrypted) == (keyring.key_id, encrypt)


@MODES
def test_a_tombstone_is_sealed_too(encrypt):
    keyring = Keyring([NEW], encrypt)
    data = encode_record(KEY, b"", generation=1, created_ms=0, accessed_ms=0, is_tombstone=True, keyring=keyring)
    assert decode_record(data, KEY, keyring=keyring).is_tombstone
    with pytest.raises(CorruptRecord):
        decode_record(data[:5] + bytes([data[5] ^ 1]) + data[6:], KEY, keyring=keyring)


@MODES
def test_the_size_of_the_seal_is_known_beforehand(encrypt):
    keyring = Keyring([NEW], encrypt)
    assert len(sealed(keyring)) == 84 + len(BODY) + keyring.seal_size


def test_only_encryption_hides_the_attributes():
    assert b"cart" in sealed(Keyring([NEW]))
    assert b"cart" not in sealed(Keyring([NEW], encrypt=True))


def test_no_two_encryptions_of_a_record_are_alike():
    keyring = Keyring([NEW], encrypt=True)
    assert sealed(keyring) != sealed(keyring)


@MODES
def test_every_change_of_one_bit_is_refused(encrypt):
    keyring = Keyring([NEW], encrypt)
    data = sealed(keyring)
    for at in range(len(data)):
        for bit in range(8):
            with pytest.raises(CorruptRecord):
                decode_record(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], KEY, keyring=keyring)


@MODES
def test_a_report_of_what_was_forged_shows_no_key(encrypt):
    """Django's debug page and the services that collect errors show the local variables of each function."""
    keyring = Keyring([NEW], encrypt)
    data = sealed(keyring)
    with pytest.raises(CorruptRecord) as caught:
        decode_record(data[:-1] + bytes([data[-1] ^ 1]), KEY, keyring=keyring)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    shown = repr(frames[-1].f_locals)
    keys = keyring._keys[keyring.key_id]
    assert frames[-1].f_code.co_name == "open"
    assert repr(KEY) in shown
    assert repr(keys.signing) not in shown
    assert repr(keys.encryption) not in shown


@MODES
def test_every_truncation_is_refused(encrypt):
    keyring = Keyring([NEW], encrypt)
    data = sealed(keyring)
    for n_bytes in range(len(data)):
        with pytest.raises(CorruptRecord):
            decode_record(data[:n_bytes], KEY, keyring=keyring)


@MODES
def test_the_record_of_another_key_is_corrupt(encrypt):
    keyring = Keyring([NEW], encrypt)
    with pytest.raises(CorruptRecord, match="another key"):
        decode_record(sealed(keyring), KEY + b"x", keyring=keyring)


@MODES
def test_head_body_and_key_cannot_be_cut_elsewhere(encrypt):
    """What the seal covers has no seam: a byte that moves from the body to the key is noticed."""
    keyring = Keyring([NEW], encrypt)
    data = bytearray(sealed(keyring))
    data[44] -= 1  # the body's length
    end = 84 + len(BODY)
    with pytest.raises(CorruptRecord, match="forged"):
        decode_record(bytes(data[: end - 1] + data[end:]), BODY[-1:] + KEY, keyring=keyring)


@MODES
def test_the_first_secret_writes_and_all_read(encrypt):
    before, during, after = Keyring([OLD], encrypt), Keyring([NEW, OLD], encrypt), Keyring([NEW], encrypt)
    assert decode_record(sealed(before), KEY, keyring=during).key_id == before.key_id
    assert decode_record(sealed(during), KEY, keyring=after).key_id == after.key_id
    assert before.key_id != after.key_id


@MODES
def test_a_record_of_an_unknown_key_is_left_alone(encrypt):
    with pytest.raises(UnknownFormat, match="none of the configured secrets"):
        decode_record(sealed(Keyring([NEW], encrypt)), KEY, keyring=Keyring([OLD], encrypt))


@MODES
def test_another_secret_that_claims_the_id_is_not_believed(encrypt):
    forger = Keyring([OLD], encrypt)
    keyring = Keyring([NEW], encrypt)
    data = bytearray(sealed(forger))
    data[6:8] = keyring.key_id.to_bytes(2, "little")
    with pytest.raises(CorruptRecord, match="forged") as caught:
        decode_record(bytes(data), KEY, keyring=keyring)
    assert not isinstance(caught.value, UnknownFormat)


@MODES
def test_a_record_without_a_key_is_refused_where_secrets_are_configured(encrypt):
    keyring = Keyring([NEW], encrypt)
    data = with_digest(sealed(keyring))
    assert decode_record(data, KEY).generation == 7
    with pytest.raises(CorruptRecord, match="nobody has signed") as caught:
        decode_record(data, KEY, keyring=keyring)
    assert not isinstance(caught.value, UnknownFormat)


@MODES
def test_a_sealed_record_is_left_alone_where_no_secrets_are_configured(encrypt):
    with pytest.raises(UnknownFormat, match="no secrets are configured"):
        decode_record(sealed(Keyring([NEW], encrypt)), KEY)


@MODES
def test_a_deployment_may_go_from_signing_to_encryption_and_back(encrypt):
    data = sealed(Keyring([NEW], not encrypt))
    assert decode_record(data, KEY, keyring=Keyring([NEW], encrypt)).is_encrypted is not encrypt


@MODES
@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_a_body_is_compressed_before_it_is_sealed(encrypt, method):
    keyring = Keyring([NEW], encrypt)
    fields = {"generation": 7, "created_ms": 1, "accessed_ms": 2}
    data = encode_record(KEY, BODY, **fields, keyring=keyring, compressor=Compressor(0, method))
    assert len(data) < 84 + len(BODY)
    assert decode_record(data, KEY, keyring=keyring).body == BODY
    with pytest.raises(CorruptRecord, match="forged"):
        decode_record(data[:5] + bytes([data[5] ^ 6]) + data[6:], KEY, keyring=keyring)


def test_text_and_bytes_of_it_are_one_secret():
    assert Keyring(["Zoë's secret of some length"]).key_id == Keyring(["Zoë's secret of some length".encode()]).key_id


def test_a_lone_surrogate_in_a_secret_from_the_environment_does_no_harm():
    keyring = Keyring(["\udcff a secret of some length"])
    assert decode_record(sealed(keyring), KEY, keyring=keyring).body == BODY


@pytest.mark.parametrize("secrets", [(), ("short",), (None,), (7,), (NEW, ""), (NEW, NEW.decode())])
def test_secrets_that_cannot_be_used_are_refused_and_not_shown(secrets):
    with pytest.raises(ConfigurationError) as caught:
        Keyring(secrets)
    assert caught.value.setting == "secrets"
    assert "short" not in str(caught.value)
    assert "new secret" not in str(caught.value)


def test_an_id_of_zero_which_stands_for_no_key_is_never_given(monkeypatch):
    monkeypatch.setattr(keyring_module.hmac, "digest", lambda key, message, name: bytes(32))
    assert Keyring([NEW]).key_id == 1


def test_without_its_library_encryption_is_refused_to_write_and_left_alone_to_read(monkeypatch):
    data = sealed(Keyring([NEW], encrypt=True))
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"msm-fast\[crypto\]"):
        Keyring([NEW], encrypt=True)
    with pytest.raises(UnknownFormat, match="cryptography"):
        decode_record(data, KEY, keyring=Keyring([NEW]))


def test_a_keyring_does_not_show_its_secrets():
    assert "secret" not in repr(Keyring([NEW])).lower()
