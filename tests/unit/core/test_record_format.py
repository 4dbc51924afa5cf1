import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import decode_record, encode_record
from msm_fast._core.record_format import RecordFormat
from msm_fast.errors import ConfigurationError

KEY = b"k"
BODY, _ = AttributeMap({"note": "long " * 100}).encode()
FIELDS = {"generation": 1, "created_ms": 0, "accessed_ms": 0}
SECRETS = ("a first secret of some length", "a second secret of some length")

FORMATS = {
    "plain": {},
    "signed": {"secrets": SECRETS},
    "encrypted": {"secrets": SECRETS, "encrypt": True},
    "zlib": {"compress_over": 100},
    "zstd": {"compress_over": 100, "compression": "zstd"},
    "all": {"secrets": SECRETS, "encrypt": True, "compress_over": 0, "compression": "zstd"},
}


@pytest.mark.parametrize("settings", FORMATS.values(), ids=FORMATS)
def test_what_is_written_is_read_and_has_the_size_that_was_foretold(settings):
    records = RecordFormat(**settings)
    data = records.encode(KEY, BODY, **FIELDS)
    record = records.decode(data, KEY)
    assert record.body == BODY
    assert records.is_current(record)
    assert records.size(BODY) == len(data)
    assert len(data) <= records.overhead + len(BODY)


def test_where_nothing_is_asked_for_nothing_stands_in_between():
    records = RecordFormat()
    assert records.encode is encode_record
    assert records.decode is decode_record


def test_a_compressed_record_is_read_where_nothing_is_compressed():
    for method in ("zlib", "zstd"):
        data = RecordFormat(compress_over=0, compression=method).encode(KEY, BODY, **FIELDS)
        assert len(data) < len(BODY)
        assert RecordFormat().decode(data, KEY).body == BODY


@pytest.mark.parametrize(
    "before", [{"secrets": SECRETS[1:]}, {"secrets": SECRETS, "encrypt": True}], ids=["secret", "encryption"]
)
def test_a_record_that_was_sealed_otherwise_is_not_current(before):
    now = RecordFormat(secrets=SECRETS)
    assert not now.is_current(now.decode(RecordFormat(**before).encode(KEY, BODY, **FIELDS), KEY))


def test_encryption_needs_secrets():
    with pytest.raises(ConfigurationError, match="encrypt"):
        RecordFormat(encrypt=True)


def test_a_method_is_checked_even_if_nothing_is_compressed():
    with pytest.raises(ConfigurationError, match="compression"):
        RecordFormat(compression="lzma")
