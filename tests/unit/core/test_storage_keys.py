import hashlib

import pytest

from msm_fast._core.session_id import SessionId, StorageKeys


@pytest.mark.parametrize("text", ["abc", "abc-n1", "abc-n1.w1", "abc.w1"])
def test_a_key_is_the_prefix_and_the_plain_part(text):
    assert StorageKeys("shop:", False).of(SessionId(text)) == b"shop:abc"


def test_without_a_prefix_it_is_the_plain_part():
    assert StorageKeys("", False).of(SessionId("p" * 128)) == b"p" * 128


@pytest.mark.parametrize("text", ["abc", "abc-n1", "abc-n1.w1"])
def test_a_hashed_key_is_the_prefix_and_a_digest_of_the_plain_part(text):
    digest = hashlib.blake2b(b"abc", digest_size=16, person=b"msm_fast id").hexdigest().upper()
    assert StorageKeys("shop:", True).of(SessionId(text)) == f"shop:{digest}".encode()


def test_an_id_that_was_never_made_has_no_key():
    with pytest.raises(TypeError):
        StorageKeys("", False).of(SessionId.__new__(SessionId))
    with pytest.raises(TypeError):
        StorageKeys("", False).of(None)


def test_a_prefix_is_ascii():
    with pytest.raises(UnicodeEncodeError):
        StorageKeys("ü:", False)
