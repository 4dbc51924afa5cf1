import pytest
from hypothesis import given
from hypothesis import strategies as st

from msm_fast._core.session_id import SessionId
from msm_fast.errors import InvalidSessionId
from tests.reference import session_id as reference

NEARLY = st.text(st.sampled_from("abZ09_~-.\n é"), max_size=12)
PARTS = st.text(st.sampled_from("abZ09_~-. é"), max_size=8)
LONG = st.builds(
    "{}-{}.{}".format,
    st.integers(120, 135).map("p".__mul__),
    st.integers(25, 36).map("n".__mul__),
    st.integers(30, 70).map("r".__mul__),
)
VALID = st.from_regex(reference.GRAMMAR, fullmatch=True).filter(lambda text: len(text) <= 200)


@given(st.one_of(NEARLY, LONG, st.text(), VALID))
def test_parse_agrees_with_the_oracle(text):
    parsed = SessionId.parse(text)
    assert (parsed and (parsed.plain, parsed.node, parsed.route)) == reference.parse(text)
    assert parsed is None or str(parsed) == text


@given(VALID, st.one_of(st.none(), PARTS), st.one_of(st.none(), PARTS))
def test_exchanges_agree_with_the_oracle(text, node, route):
    session_id = SessionId(text)
    for exchange, argument, parts in (
        (session_id.with_node, node, (session_id.plain, node, session_id.route)),
        (session_id.with_route, route, (session_id.plain, session_id.node, route)),
    ):
        expected = reference.compose(*parts)
        if expected is None:
            with pytest.raises(InvalidSessionId):
                exchange(argument)
        else:
            assert str(exchange(argument)) == expected


@given(st.one_of(st.none(), st.binary(), st.integers(), st.floats(), st.lists(st.text())))
def test_no_other_type_is_an_id(thing):
    assert SessionId.parse(thing) is None
