# cython: annotation_typing=False
# Annotations are for the reader: the bodies refuse a wrong argument with an error that says what is accepted.
"""The record that stands in memcached for one session, and the frames in its body, one for each attribute.

The byte layout of both is the table in src_c/msm_record.h. Without a keyring the trailer is the XXH3-64 of all that
precedes it, seeded with the XXH3-64 of the storage key. With one it is what the keyring makes of both. In either case a
record that was moved to another key is corrupt.
"""

from xxhash import xxh3_64_intdigest

cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from msm_fast._core.c_record cimport *

from msm_fast._core.compression import Compressor, expand
from msm_fast._core.keyring import Keyring
from msm_fast.errors import CorruptRecord, UnknownFormat

__all__ = ["DIGEST_SIZE", "GENERATION_MAX", "HEAD_SIZE", "Record", "decode_record", "encode_record", "value_sizes"]

HEAD_SIZE = MSM_RECORD_HEAD_SIZE
"""How many bytes a record takes before its body."""
DIGEST_SIZE = MSM_RECORD_DIGEST_SIZE
"""How many bytes follow the body of a record that no keyring has sealed."""
GENERATION_MAX = MSM_RECORD_NUMBER_LIMIT - 1
"""The last that a session may have: a reader takes a larger one for damage."""


@cython.final
cdef class Record:
    """What a record says; made by `decode_record`. body: the frames, for `AttributeMap.decode`.

    lineage: the nonces of the write itself and of those it was based on, newest first, at most 8. home: 32 bits that
    name the node which decides between writers. key_id, is_encrypted: of the key that has sealed it, 0 for none.
    """

    @property
    def lineage(self) -> tuple[int, ...]:
        return self.nonces()

    cdef tuple nonces(self):
        return tuple([self._lineage[i] for i in range(<int> MSM_RECORD_LINEAGE) if self._lineage[i]])

    def __init__(self):
        raise TypeError("a Record is made by decode_record")

    def __repr__(self):
        kind = "tombstone" if self.is_tombstone else f"body of {len(self.body)} bytes"
        return f"<Record generation={self.generation}, {kind}>"


def encode_record(
    bytes storage_key not None,
    bytes body not None,
    *,
    uint64_t generation,
    uint64_t created_ms,
    uint64_t accessed_ms,
    uint32_t max_inactive_s = 0,
    uint32_t absolute_lifetime_s = 0,
    bint is_tombstone = False,
    tuple lineage not None = (),
    uint32_t home = 0,
    keyring: Keyring | None = None,
    compressor: Compressor | None = None,
) -> bytes:
    """Return the record that holds body, as it is stored under storage_key.

    body: what `AttributeMap.encode` gave. max_inactive_s, absolute_lifetime_s: 0 for no limit. lineage: nonces, newest
    first, 1 to 2**32-1; those after the eighth are left out. home: 32 bits that name a node. keyring, compressor: what
    seals the record, and makes its body smaller.
    Raises:  CorruptRecord when body is not made of frames, OverflowError for a number outside its field.
    """
    cdef msm_record_head_t head
    head.generation = generation
    head.created_ms = created_ms
    head.accessed_ms = accessed_ms
    head.max_inactive_s = max_inactive_s
    head.absolute_lifetime_s = absolute_lifetime_s
    head.flags = MSM_RECORD_TOMBSTONE if is_tombstone else 0
    for i in range(<int> MSM_RECORD_LINEAGE):
        head.lineage[i] = lineage[i] if i < len(lineage) else 0
    head.home = home
    head.n_attributes = count_frames(body, 0)
    head.key_id = 0
    if compressor is not None:
        packed = compressor.pack(body)
        if packed is not None:
            body = packed
            head.flags |= <uint8_t> (MSM_RECORD_ZSTD if compressor.is_zstd else MSM_RECORD_ZLIB)
    if keyring is not None:
        head.key_id = keyring.key_id
        head.flags |= <uint8_t> (MSM_RECORD_ENCRYPTED if keyring.encrypts else MSM_RECORD_SIGNED)
    check_body_size(PyBytes_GET_SIZE(body))
    head.body_size = <uint32_t> PyBytes_GET_SIZE(body)
    if keyring is not None:
        return seal(&head, body, storage_key, keyring)
    return with_digest(&head, body, storage_key)


cdef bytes with_digest(const msm_record_head_t *head, bytes body, bytes storage_key):
    cdef Py_ssize_t n_hashed = MSM_RECORD_HEAD_SIZE + PyBytes_GET_SIZE(body)
    data = PyBytes_FromStringAndSize(NULL, n_hashed + MSM_RECORD_DIGEST_SIZE)
    cdef uint8_t *out = <uint8_t *> PyBytes_AS_STRING(data)
    msm_record_head_write(head, out)
    memcpy(out + MSM_RECORD_HEAD_SIZE, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    msm_store_u64(digest(out, n_hashed, storage_key), out + n_hashed)
    return data


cdef bytes seal(const msm_record_head_t *head, bytes body, bytes storage_key, object keyring):
    cdef uint8_t buf[MSM_RECORD_HEAD_SIZE]
    msm_record_head_write(head, buf)
    return keyring.seal(PyBytes_FromStringAndSize(<const char *> buf, MSM_RECORD_HEAD_SIZE), body, storage_key)


def decode_record(bytes data not None, bytes storage_key not None, *, keyring: Keyring | None = None) -> Record:
    """Return the record that data holds, if it was written for storage_key.

    keyring: with one, only what it has sealed is taken.
    Raises:  UnknownFormat for a version, flag or key that is not known here; CorruptRecord otherwise.
    Cost:    one pass over data for the digest, one over the heads of its frames, one copy of the body.
    """
    cdef msm_record_head_t head
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t n_bytes = PyBytes_GET_SIZE(data)
    cdef msm_status status = msm_record_head_read(buf, n_bytes, &head)
    if status == MSM_ERR_VERSION:
        raise UnknownFormat("a record of another version", 4)
    if status == MSM_ERR_LIMIT:
        raise CorruptRecord("a generation or a time that no session has", 8)
    if status != MSM_OK:
        raise CorruptRecord("no record" if status == MSM_ERR_SYNTAX else "a record of a wrong length", 0)
    cdef bytes body
    if keyring is None:
        body = body_by_digest(data, &head, storage_key)
    elif head.key_id:
        body = keyring.open(
            data[:MSM_RECORD_HEAD_SIZE],
            data[MSM_RECORD_HEAD_SIZE:],
            storage_key,
            head.key_id,
            head.flags & MSM_RECORD_ENCRYPTED != 0,
        )
    else:
        raise CorruptRecord("a record that nobody has signed, where secrets are configured", 5)
    if head.flags & (MSM_RECORD_ZLIB | MSM_RECORD_ZSTD):
        body = expand(body, head.flags & MSM_RECORD_ZSTD != 0)
    if count_frames(body, MSM_RECORD_HEAD_SIZE) != head.n_attributes:
        raise CorruptRecord("the number of attributes does not match", 40)
    check_names(body, head.n_attributes)
    cdef Record record = Record.__new__(Record)
    record.generation = head.generation
    record.created_ms = head.created_ms
    record.accessed_ms = head.accessed_ms
    record.max_inactive_s = head.max_inactive_s
    record.absolute_lifetime_s = head.absolute_lifetime_s
    record.is_tombstone = head.flags & MSM_RECORD_TOMBSTONE
    for i in range(<int> MSM_RECORD_LINEAGE):
        record._lineage[i] = head.lineage[i]
    record.home = head.home
    record.key_id = head.key_id
    record.is_encrypted = head.flags & MSM_RECORD_ENCRYPTED != 0
    record.body = body
    return record


cdef bytes body_by_digest(bytes data, const msm_record_head_t *head, bytes storage_key):
    """Return the body, as it is stored, of a record that must have a digest as its trailer."""
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t n_hashed = PyBytes_GET_SIZE(data) - MSM_RECORD_DIGEST_SIZE
    if head.key_id:
        raise UnknownFormat("a record that was signed or encrypted, and no secrets are configured", 6)
    if msm_load_u64(buf + n_hashed) != digest(buf, n_hashed, storage_key):
        raise CorruptRecord("the trailer does not match: damaged, or the record of another key", n_hashed)
    return PyBytes_FromStringAndSize(<const char *> buf + MSM_RECORD_HEAD_SIZE, head.body_size)


def value_sizes(bytes body not None) -> dict[str, int]:
    """Return how many bytes the value of each attribute takes in body; null takes one.

    Raises:  CorruptRecord when a name stands twice or is not UTF-8.
    """
    cdef msm_frame_t frame
    cdef dict sizes = {}
    for name, start in index_names(body).items():
        read_frame(body, start, &frame)
        sizes[name] = frame.end - frame.value
    return sizes


cdef uint64_t digest(const uint8_t *buf, Py_ssize_t n_bytes, bytes storage_key) except? 0:
    view = PyMemoryView_FromMemory(<char *> buf, n_bytes, PyBUF_READ)
    return xxh3_64_intdigest(view, xxh3_64_intdigest(storage_key))


cdef msm_status read_frame(bytes body, size_t start, msm_frame_t *frame) noexcept:
    return msm_frame_read(<const uint8_t *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), start, frame)


cdef uint32_t count_frames(bytes body, Py_ssize_t at) except? 0xFFFFFFFF:
    """Check the bounds of every frame. at: where body stands in the record, for the error's offset."""
    cdef uint32_t n_frames = 0
    cdef msm_frame_t frame
    if msm_frames_count(<const uint8_t *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), &n_frames) == MSM_OK:
        return n_frames
    frame.end = 0
    while read_frame(body, frame.end, &frame) == MSM_OK:
        pass
    raise CorruptRecord("a frame is cut", at + frame.end)


cdef int check_names(bytes body, uint32_t n_frames) except -1:
    """Refuse a body in which a name stands twice or is not UTF-8: not all of it could be read later."""
    if msm_names_check(<const uint8_t *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), n_frames) != MSM_OK:
        index_names(body, MSM_RECORD_HEAD_SIZE)
    return 0


cdef int check_body_size(Py_ssize_t n_bytes) except -1:
    if n_bytes > 0xFFFFFFFF:
        raise ValueError("the attributes take more than 4 GiB")
    return 0


cdef bint find_frame(bytes body, dict index, object name, msm_frame_t *frame) except -1:
    cdef const uint8_t *buf = <const uint8_t *> PyBytes_AS_STRING(body)
    cdef Py_ssize_t n_name
    cdef const char *utf8
    if index is not None:
        start = index.get(name)
        return start is not None and read_frame(body, start, frame) == MSM_OK
    if not isinstance(name, str):
        return False
    try:
        utf8 = PyUnicode_AsUTF8AndSize(name, &n_name)
    except UnicodeEncodeError:
        return False
    return msm_frames_find(buf, PyBytes_GET_SIZE(body), <const uint8_t *> utf8, n_name, frame) == MSM_OK


cdef dict index_names(bytes body, Py_ssize_t at=0):
    """Return where the frame of each name starts, in the order of the frames. at: as for `count_frames`."""
    cdef dict index = {}
    cdef msm_frame_t frame
    cdef const char *buf = PyBytes_AS_STRING(body)
    frame.end = 0
    while read_frame(body, frame.end, &frame) == MSM_OK:
        try:
            name = buf[frame.name:frame.value].decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptRecord("a name is not UTF-8", at + frame.name) from error
        if name in index:
            raise CorruptRecord("a name stands twice", at + frame.start)
        index[name] = frame.start
    return index


cdef Py_ssize_t frame_end(bytes base, Py_ssize_t start) except -1:
    cdef msm_frame_t frame
    if read_frame(base, start, &frame) != MSM_OK:
        raise RuntimeError("the map was saved or rebased by another thread meanwhile")
    return frame.end
