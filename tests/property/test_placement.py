import math

from hypothesis import given
from hypothesis import strategies as st

from msm_fast._core.placement import RendezvousHash
from tests.reference import placement as reference

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NODE_IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
CLUSTERS = st.one_of(
    st.lists(NODE_IDS, min_size=1, max_size=12, unique=True),
    st.dictionaries(NODE_IDS, st.floats(1e-100, 1e100), min_size=1, max_size=12),
    st.dictionaries(NODE_IDS, st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=12),
)


@given(CLUSTERS, st.one_of(TEXT, st.binary(max_size=40)))
def test_ranks_are_those_of_the_oracle(nodes, key):
    expected = reference.ranked(nodes, key)
    built = RendezvousHash(nodes)
    assert built.ranked(key) == expected
    assert built.node_for(key) == expected[0]
    assert built.nodes_for([key, key]) == expected[:1] * 2


@given(CLUSTERS, TEXT, st.data())
def test_without_a_node_the_others_keep_their_order(nodes, key, data):
    ranks = RendezvousHash(nodes).ranked(key)
    if len(ranks) == 1:
        return
    gone = data.draw(st.sampled_from(ranks))
    assert RendezvousHash(reference.without(nodes, gone)).ranked(key) == [node for node in ranks if node != gone]


@given(st.floats(2**-53, 1 - 2**-53))
def test_the_logarithm_is_one(u):
    assert math.isclose(reference.minus_log(u), -math.log(u), rel_tol=1e-15)
