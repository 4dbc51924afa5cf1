import json

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, loads
from msm_fast._core.record import decode_record, encode_record
from tests.golden.make_records import RECORDS, VECTORS, make

GOLDEN = json.loads(VECTORS.read_text())


def test_the_script_still_makes_the_committed_records():
    assert make() == GOLDEN


@pytest.mark.parametrize("name", RECORDS)
def test_a_committed_record_is_read(name):
    golden = GOLDEN[name]
    _, values, fields, is_tombstone, lineage, home = RECORDS[name]
    record = decode_record(bytes.fromhex(golden["record"]), golden["storage_key"].encode())
    assert (record.generation, record.created_ms, record.accessed_ms) == fields[:3]
    assert (record.max_inactive_s, record.absolute_lifetime_s, record.is_tombstone) == (
        *fields[3:],
        is_tombstone,
    )
    assert (record.lineage, record.home) == (lineage, home)
    attributes = AttributeMap.decode(record.body)
    assert list(attributes.items()) == list(values.items())
    assert [type(value) for value in attributes.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize("name", RECORDS)
def test_a_committed_record_is_written_again(name):
    key, values, fields, is_tombstone, lineage, home = RECORDS[name]
    generation, created_ms, accessed_ms, max_inactive_s, lifetime_s = fields
    body, _ = AttributeMap(values).encode()
    data = encode_record(
        key,
        body,
        generation=generation,
        created_ms=created_ms,
        accessed_ms=accessed_ms,
        max_inactive_s=max_inactive_s,
        absolute_lifetime_s=lifetime_s,
        is_tombstone=is_tombstone,
        lineage=lineage,
        home=home,
    )
    assert data.hex() == GOLDEN[name]["record"]


@pytest.mark.parametrize("name", RECORDS)
def test_each_committed_value_is_read_and_written_alone(name):
    for attribute, encoded in GOLDEN[name]["attributes"]:
        assert dumps(loads(bytes.fromhex(encoded))).hex() == encoded, attribute
