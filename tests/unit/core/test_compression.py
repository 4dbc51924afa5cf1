import os
import sys
import zlib

import pytest

from msm_fast._core.compression import BODY_SIZE_MAX, Compressor, expand
from msm_fast.errors import ConfigurationError, CorruptRecord, UnknownFormat

METHODS = ["zlib", "zstd"]
TEXT = b"one item of a cart, " * 100


@pytest.fixture
def no_zstd(monkeypatch):
    """An interpreter that has no library for zstd."""
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("backports.zstd", raising=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_body_comes_back_and_was_smaller_meanwhile(method):
    compressor = Compressor(100, method)
    packed = compressor.pack(TEXT)
    assert len(packed) < len(TEXT) / 10
    assert expand(packed, compressor.is_zstd) == TEXT


@pytest.mark.parametrize("method", METHODS)
def test_only_bodies_over_the_size_are_compressed(method):
    compressor = Compressor(100, method)
    assert compressor.pack(b"a" * 100) is None
    assert compressor.pack(b"a" * 101) is not None


@pytest.mark.parametrize("method", METHODS)
def test_a_body_that_would_not_be_smaller_stays_as_it_is(method):
    assert Compressor(0, method).pack(os.urandom(1000)) is None


@pytest.mark.parametrize("method", METHODS)
def test_a_body_may_be_as_large_as_the_bound_and_no_larger(method):
    compressor = Compressor(0, method)
    largest = bytes(BODY_SIZE_MAX)
    assert expand(compressor.pack(largest), compressor.is_zstd) == largest
    assert compressor.pack(largest + b"\0") is None


def bomb(is_zstd):
    content = bytes(BODY_SIZE_MAX + 1)
    if not is_zstd:
        return zlib.compress(content)
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd.compress(content)


@pytest.mark.parametrize("is_zstd", [False, True], ids=METHODS)
def test_few_bytes_that_would_fill_the_memory_are_corrupt(is_zstd):
    packed = bomb(is_zstd)
    assert len(packed) < 100_000
    with pytest.raises(CorruptRecord, match="over 8 MiB"):
        expand(packed, is_zstd)


@pytest.mark.parametrize("is_zstd", [False, True], ids=METHODS)
def test_what_is_cut_changed_or_followed_by_bytes_is_corrupt_or_another_body(is_zstd):
    packed = Compressor(0, METHODS[is_zstd]).pack(TEXT)
    for n_bytes in range(len(packed)):
        with pytest.raises(CorruptRecord):
            expand(packed[:n_bytes], is_zstd)
        changed = bytearray(packed)
        changed[n_bytes] ^= 0x41
        try:
            expand(bytes(changed), is_zstd)
        except CorruptRecord:
            continue
    with pytest.raises(CorruptRecord):
        expand(packed + b"\0", is_zstd)
    with pytest.raises(CorruptRecord):
        expand(packed, not is_zstd)


def test_without_its_library_zstd_is_refused_to_write_and_left_alone_to_read(no_zstd):
    with pytest.raises(ConfigurationError, match=r"msm-fast\[zstd\]"):
        Compressor(0, "zstd")
    with pytest.raises(UnknownFormat, match="zstd"):
        expand(b"packed", True)


def test_another_method_is_refused():
    with pytest.raises(ConfigurationError, match="'zlib' or 'zstd'"):
        Compressor(0, "lzma")
