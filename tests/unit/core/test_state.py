import gc
import weakref

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import decode_record, encode_record
from msm_fast._core.session_id import SessionId
from msm_fast._core.state import NearCopy, SessionState, Stored

KEY = b"k"


class Records:
    """Reads records, and counts how often."""

    def __init__(self):
        self.n_read = 0

    def decode(self, data, key):
        self.n_read += 1
        return decode_record(data, key)


def state(**named):
    return SessionState(SessionId("abc-n1"), AttributeMap({"user": "ada"}), 1, 2, 60, 0, **named)


def test_a_near_copy_is_read_when_it_is_first_looked_at_and_once():
    data = encode_record(KEY, b"", generation=3, created_ms=1, accessed_ms=1, lineage=(7,))
    near, records = NearCopy(data, len(data), 1, 7, 60, {"n1": 5}, 0.0), Records()
    assert near.record(records, KEY).generation == 3
    assert near.record(records, KEY) is near.record(records, KEY)
    assert records.n_read == 1


@pytest.mark.parametrize(("node", "version", "nonce"), [("n2", 5, 7), ("n1", 6, 7), ("n1", 5, 8)])
def test_a_copy_of_another_node_version_or_nonce_is_not_what_was_seen(node, version, nonce):
    near = NearCopy(b"", 0, 1, 7, 60, {"n1": 5}, 0.0)
    assert near.is_copy("n1", 5, 7)
    assert not near.is_copy(node, version, nonce)


def test_a_session_is_kept_if_it_is_stored_lives_here_or_is_in_the_local_store():
    assert not state().is_kept
    assert state(stored=Stored(1, (7,), {}, b"")).is_kept
    assert state(is_live=True).is_kept
    assert state(local_generation=1).is_kept


def test_a_view_of_a_session_that_names_no_write_is_an_error_and_no_crash():
    with pytest.raises(IndexError):
        _ = Stored(1, (), {}, b"").nonce


def test_a_client_keeps_the_id_of_a_session_that_is_kept_or_cannot_be_reached():
    assert not state().keeps_id
    assert not state(local_kind="ended").keeps_id
    assert state(local_kind="provisional").keeps_id
    assert state(is_live=True).keeps_id


def test_who_parts_with_a_session_changes_his_own():
    shared = state(revision=4, used_at=1.0)
    own = shared.part_with()
    own.attributes["user"] = "bob"
    own.must_store = True
    assert shared.attributes["user"] == "ada"
    assert not shared.must_store
    assert (own.session_id, own.max_inactive_s) == (shared.session_id, 60)
    assert (own.revision, own.used_at, own.turn, own.unsettled, own.own_nonces) == (0, None, None, None, frozenset())


def test_a_state_can_be_referred_to_weakly_and_its_cycles_are_collected():
    circular = state()
    circular.unsettled = circular
    reference = weakref.ref(circular)
    del circular
    gc.collect()
    assert reference() is None


def test_no_id_is_shown():
    assert "abc" not in repr(state())
