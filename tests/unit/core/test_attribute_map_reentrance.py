"""Values and threads that use a map while it is at work."""

import sys
import threading

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import register_type
from tests.unit.core.attribute_maps import Tracked, encode, frames, read_back, saved


def test_decoding_may_read_change_and_save_the_map(monkeypatch):
    attributes = saved(a=Tracked(1), b=2)

    def act():
        monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: None))
        attributes["b"] = 3
        attributes.mark_saved(encode(attributes))

    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(act))
    assert attributes["a"].content == 1
    assert attributes == {"a": attributes["a"], "b": 3}


def test_a_name_deleted_while_it_is_decoded_is_gone(monkeypatch):
    attributes = saved(a=Tracked(1), b=2)
    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: attributes.__delitem__("a")))
    assert attributes.get("a") is None
    assert attributes == {"b": 2}


def test_encoding_may_change_the_map(monkeypatch):
    attributes = saved(a=Tracked(1), b=2)
    attributes["c"] = Tracked(3)
    attributes["a"].content = 9
    body = frames(("b", 5))

    def act():
        attributes["d"] = 4
        attributes.pop("b", None)
        monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: None))
        attributes.rebase(body)

    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(act))
    assert list(AttributeMap.decode(encode(attributes))) == ["a", "b", "c"]


@pytest.fixture
def while_comparing(monkeypatch):
    """Return a function that lets something be done once, while the next `Tracked` is encoded or decoded."""

    def plan(act):
        def once():
            monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: None))
            act()

        monkeypatch.setattr(Tracked, "meanwhile", staticmethod(once))

    return plan


@pytest.mark.parametrize("winner", [b"", frames(("a", 9), ("new", 9), ("b", 9))])
def test_what_is_set_while_a_rebase_compares_is_an_own_change(while_comparing, winner):
    attributes = saved(a=1, b=2)
    attributes["tracked"] = Tracked(1)
    while_comparing(lambda: attributes.update(new=5, b=6))
    attributes.rebase(winner)
    assert attributes["new"] == 5
    assert attributes["b"] == 6
    assert attributes.get("a") == (9 if winner else None)
    assert AttributeMap.decode(encode(attributes))["new"] == 5


def test_what_is_only_read_while_a_rebase_compares_is_no_own_change(while_comparing):
    attributes = saved(a=1, b=[2], c=[3], same=[4])
    attributes["tracked"] = Tracked(1)
    handed_out = []
    while_comparing(lambda: handed_out.extend([attributes["a"], attributes["b"], attributes["same"]]))
    attributes.rebase(frames(("a", 9), ("b", [9]), ("c", [9]), ("same", [4])))
    assert (attributes["a"], attributes["b"], attributes["c"]) == (9, [9], [9])
    assert attributes["same"] is handed_out[2]
    assert attributes.changed_names() == ({"tracked"}, set())


def test_what_is_deleted_while_a_rebase_compares_stays_deleted(while_comparing):
    attributes = saved(a=1, b=2)
    attributes["b"], attributes["tracked"] = 3, Tracked(1)

    def delete():
        del attributes["a"], attributes["b"]

    while_comparing(delete)
    attributes.rebase(frames(("a", 9), ("b", 9), ("c", 9)))
    assert attributes == {"c": 9, "tracked": attributes["tracked"]}
    assert attributes.changed_names() == ({"tracked"}, {"a", "b"})


def test_a_value_replaced_while_a_rebase_compares_it_is_the_one_that_stays(while_comparing):
    attributes = saved(a=1)
    attributes["tracked"] = Tracked(1)
    while_comparing(lambda: attributes.update(tracked="later"))
    attributes.rebase(frames(("tracked", "theirs")))
    assert attributes == {"tracked": "later"}


def test_what_is_saved_while_a_rebase_compares_is_no_own_change_any_more(while_comparing):
    attributes = saved(a=1, b=2, c=3)
    attributes["a"], attributes["tracked"], attributes["c"] = "longer", Tracked(1), "longer"
    while_comparing(lambda: attributes.mark_saved(encode(attributes)))
    theirs = {"a": 9, "b": 9, "c": 9, "tracked": 9}
    attributes.rebase(frames(*theirs.items()))
    assert attributes == theirs


def test_a_rebase_ends_though_something_is_set_each_time_it_compares(monkeypatch):
    attributes = saved(a=1)
    attributes["new0"] = Tracked(0)
    names = ["new0"]

    def set_another():
        names.append(f"new{len(names)}")
        attributes[names[-1]] = Tracked(0)

    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(set_another))
    attributes.rebase(frames(("a", 9)))
    assert len(names) < 100
    assert list(attributes) == ["a", *names], "what could not be compared is kept"


@pytest.mark.parametrize("serializer", ["native", ("native", "json"), ("json", "native")])
def test_a_lack_of_memory_is_no_failure_of_a_value(monkeypatch, serializer):
    def lack_memory():
        raise MemoryError

    attributes = AttributeMap.decode(encode(AttributeMap({"a": Tracked(1)})), serializer=serializer)
    with monkeypatch.context() as short:
        short.setattr(Tracked, "meanwhile", staticmethod(lack_memory))
        with pytest.raises(MemoryError):
            attributes.get("a")
    assert attributes.failures == ()
    assert attributes["a"].content == 1
    attributes["a"] = Tracked(2)
    with monkeypatch.context() as short:
        short.setattr(Tracked, "meanwhile", staticmethod(lack_memory))
        with pytest.raises(MemoryError):
            attributes.encode()
    assert read_back(attributes)["a"].content == 2


@pytest.fixture
def _busy_threads():
    """Let threads take turns far more often than they would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_busy_threads")
def test_threads_that_set_names_lose_none_to_rebases():
    attributes = saved(shared=0)
    n_names = 2000
    slow = Tracked(1)

    def set_names(prefix):
        for i in range(n_names):
            attributes[f"{prefix}{i % 50}"] = i

    threads = [threading.Thread(target=set_names, args=(prefix,)) for prefix in "xy"]
    attributes["tracked"] = slow
    for thread in threads:
        thread.start()
    n_rebases = 0
    while any(thread.is_alive() for thread in threads) or n_rebases < 20:
        attributes.rebase(frames(("shared", n_rebases)))
        n_rebases += 1
    for thread in threads:
        thread.join()
    expected = {f"{prefix}{i}": n_names - 50 + i for prefix in "xy" for i in range(50)}
    assert attributes == {"shared": n_rebases - 1, "tracked": slow, **expected}


def test_threads_that_change_values_meanwhile_give_whole_frames():
    attributes = AttributeMap({"list": [], "dict": {}, "set": set(), "bytes": bytearray()})
    is_over = threading.Event()

    def churn():
        n_rounds = 0
        while not is_over.is_set():
            n_rounds += 1
            attributes["list"].append(n_rounds)
            attributes["dict"][n_rounds % 50] = n_rounds
            attributes["dict"].pop((n_rounds + 7) % 50, None)
            attributes["set"] ^= {n_rounds % 30}
            attributes["bytes"].extend(b"x")
            if n_rounds % 100 == 0:
                attributes["list"].clear()
                attributes["bytes"].clear()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            body, failures = attributes.encode()
            assert failures == ()
            assert set(dict(AttributeMap.decode(body).items())) == {"list", "dict", "set", "bytes"}
            attributes.mark_saved(body)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


class Grows:
    """A member of a dict to which another thread adds while this is encoded, twice."""

    def __init__(self, members):
        self.members = members
        self.n_left = 2

    def __getstate__(self):
        if self.n_left:
            self.n_left -= 1
            self.members[f"new{self.n_left}"] = 0
        return {"n": 1}


class Taught(dict):
    def encoded(self):
        return {name: member.__getstate__() if isinstance(member, Grows) else member for name, member in self.items()}


register_type(Taught, "tests.Taught", Taught.encoded, Taught)


@pytest.mark.parametrize(
    ("serializer", "kind"),
    [("pickle", dict), (("pickle", "json"), dict), ("native", Taught), (("native", "json"), Taught)],
)
def test_what_another_thread_adds_to_while_somebody_else_s_code_encodes_it_is_no_failure(serializer, kind):
    members = kind(old=0)
    members["grows"] = Grows(members)
    body, failures = AttributeMap({"members": members}, serializer).encode()
    assert failures == ()
    stored = AttributeMap.decode(body, serializer)["members"]
    assert type(stored) is kind
    assert stored.keys() == {"old", "grows", "new1", "new0"}


@pytest.mark.parametrize("error", [RuntimeError("no request"), RuntimeError("changed during iteration")])
def test_what_cannot_be_encoded_however_often_it_is_tried_is_a_failure(error):
    n_calls = []

    class Failing:
        name = "failing"

        def dumps(self, value):
            n_calls.append(1)
            raise error

        def loads(self, data):
            raise NotImplementedError

    attributes = AttributeMap({"a": 1}, Failing())
    (failure,) = attributes.encode()[1]
    assert failure.cause is error
    assert (len(n_calls) > 1) is ("iteration" in str(error))
