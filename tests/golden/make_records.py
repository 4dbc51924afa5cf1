"""Write records.json: records as the first release wrote them, which a later one must still read.

python -m tests.golden.make_records
"""

import datetime
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from tests.reference import codec, record

VECTORS = Path(__file__).with_name("records.json")
KEY = b"s:0123456789abcdef0123456789abcdef-n1.w1"
MOMENT = datetime.datetime(2024, 10, 27, 2, 30, 15, 250_000)
CET = datetime.timezone(datetime.timedelta(hours=1), "CET")

PLAIN = {
    "user": 42,
    "name": "Zoë",
    "cart": [1, 2.5, None, True],
    "prefs": {"dark": False, "sizes": [10, -3]},
}
LIMITS = {"": b"\x00\xff", "ü" * 3: 2**64 - 1, "low": -(2**63), "wide": 2**64, "deep": -(2**100)}
TYPES = {
    "complex": 1 - 2j,
    "bytearray": bytearray(b"abc"),
    "tuple": (1, (2, [3])),
    "set": {1, 300, "a", -1},
    "frozenset": frozenset({None, (1,)}),
    "keys": {1: "int", "1": "str", (1, 2): "tuple", None: "none"},
    "naive": MOMENT,
    "utc": MOMENT.replace(tzinfo=datetime.timezone.utc),
    "named": MOMENT.replace(tzinfo=CET),
    "zone": MOMENT.replace(tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    "date": datetime.date(2024, 2, 29),
    "time": datetime.time(23, 59, 59, 999_999, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    "timedelta": datetime.timedelta(-1, 2, 3),
    "decimal": Decimal("-1.20E+5"),
    "fraction": Fraction(-7, 3),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
}

# name: (storage key, attributes, times, is_tombstone, lineage, home), where times are
# (generation, created_ms, accessed_ms, max_inactive_s, lifetime_s)
RECORDS = {
    "empty": (KEY, {}, (0, 0, 0, 0, 0), False, (), 0),
    "tombstone": (KEY, {}, (9, 1_700_000_000_000, 1_700_000_001_000, 60, 0), True, (), 0),
    "last": (KEY, {}, (2**64 - 1, 2**62 - 1, 0, 0, 0), True, (), 0),
    "plain": (KEY, PLAIN, (3, 1_700_000_000_000, 1_700_000_060_000, 1800, 86400), False, (3, 2, 1), 0x01020304),
    "types": (KEY, TYPES, (4, 1_700_000_000_000, 1_700_000_060_000, 1800, 0), False, (4,), 1),
    "limits": (
        b"k",
        LIMITS,
        (2**62 - 1, 2**62 - 1, 2**62 - 1, 2**32 - 1, 2**32 - 1),
        False,
        tuple(range(2**32 - 1, 2**32 - 9, -1)),
        2**32 - 1,
    ),
}


def make():
    vectors = {}
    for name, (key, values, fields, is_tombstone, lineage, home) in RECORDS.items():
        body = b"".join(record.encode_frame(attribute, 0, codec.dumps(value)) for attribute, value in values.items())
        data = record.encode_record(key, body, *fields, is_tombstone, lineage, home)
        vectors[name] = {
            "storage_key": key.decode(),
            "fields": list(fields),
            "is_tombstone": is_tombstone,
            "lineage": list(lineage),
            "home": home,
            "attributes": [[attribute, codec.dumps(value).hex()] for attribute, value in values.items()],
            "record": data.hex(),
        }
    return vectors


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make(), indent=2) + "\n")
