"""The record and the attribute map in plain Python: everything is decoded at once and encoded in full."""

import struct

from xxhash import xxh3_64_intdigest

from tests.reference import codec

HEAD = struct.Struct("<4sBBHQQQIIII8II")
FRAME = struct.Struct("<HBI")
MAGIC = b"\x89MSM"
LIMIT = 2**62  # of a session's generation and of all times


class FormatError(Exception):
    pass


def encode_record(
    storage_key,
    body,
    generation,
    created_ms,
    accessed_ms,
    max_inactive_s,
    lifetime_s,
    is_tombstone,
    lineage=(),
    home=0,
):
    times = (generation, created_ms, accessed_ms, max_inactive_s, lifetime_s)
    nonces = (*lineage, *[0] * 8)[:8]
    head = HEAD.pack(MAGIC, 1, int(is_tombstone), 0, *times, len(split_frames(body)), len(body), *nonces, home)
    return head + body + struct.pack("<Q", digest(head + body, storage_key))


def decode_record(data, storage_key):
    """Return (generation, created_ms, accessed_ms, max_inactive_s, lifetime_s, is_tombstone, lineage, home, body)."""
    if len(data) < HEAD.size + 8:
        raise FormatError
    magic, version, flags, key_id, *times, n_attributes, n_body = HEAD.unpack_from(data)[:11]
    *nonces, home = HEAD.unpack_from(data)[11:]
    if max(times[1:3]) >= LIMIT or (times[0] >= LIMIT and flags != 1):
        raise FormatError
    body = data[HEAD.size : -8]
    if magic != MAGIC or version != 1 or flags not in (0, 1) or key_id != 0 or n_body != len(body):
        raise FormatError
    if struct.pack("<Q", digest(data[:-8], storage_key)) != data[-8:]:
        raise FormatError
    if len(split_frames(body)) != n_attributes or not has_good_names(body):
        raise FormatError
    return (*times, flags == 1, tuple(nonce for nonce in nonces if nonce), home, body)


def digest(data, storage_key):
    return xxh3_64_intdigest(data, seed=xxh3_64_intdigest(storage_key))


def encode_frame(name, tag, value):
    return FRAME.pack(len(name.encode()), tag, len(value)) + name.encode() + value


def split_frames(body):
    """Return [(name, tag, value)], names and values as bytes."""
    frames = []
    while body:
        if len(body) < FRAME.size:
            raise FormatError
        n_name, tag, n_value = FRAME.unpack_from(body)
        frame, body = body[FRAME.size : FRAME.size + n_name + n_value], body[FRAME.size + n_name + n_value :]
        if len(frame) != n_name + n_value:
            raise FormatError
        frames.append((frame[:n_name], tag, frame[n_name:]))
    return frames


def has_good_names(body):
    names = [name for name, _, _ in split_frames(body)]
    try:
        return len({name.decode() for name in names}) == len(names)
    except UnicodeDecodeError:
        return False


def decode_values(body):
    return {name.decode(): codec.loads(value) for name, _, value in split_frames(body)}


class SlowAttributeMap:
    """values: the attributes, an ordinary dict. stored: the value bytes of each name at the last save."""

    def __init__(self, body=b""):
        self.values = decode_values(body)
        self.stored = stored_values(body)

    def encode(self):
        return b"".join(encode_frame(name, 0, codec.dumps(value)) for name, value in self.values.items())

    def changed_names(self):
        changed = {name for name, value in self.values.items() if self.stored.get(name) != codec.dumps(value)}
        return changed, self.stored.keys() - self.values.keys()

    def mark_saved(self, body):
        self.stored = stored_values(body)

    def rebase(self, body):
        changed, deleted = self.changed_names()
        values = decode_values(body)
        for name in deleted:
            values.pop(name, None)
        for name, value in self.values.items():
            if name in changed:
                values[name] = value
        self.values = values
        self.mark_saved(body)


def stored_values(body):
    return {name.decode(): value for name, _, value in split_frames(body)}
