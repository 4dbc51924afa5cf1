"""Maps of attributes as tests make them, and a value that tells what is done with it."""

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, register_type
from tests.reference.record import encode_frame


class Tracked:
    """Counts how often it is encoded and decoded, and can be told to do something meanwhile."""

    n_encoded = 0
    n_decoded = 0
    meanwhile = staticmethod(lambda: None)

    def __init__(self, content):
        self.content = content

    @classmethod
    def encode(cls, value):
        cls.n_encoded += 1
        cls.meanwhile()
        return value.content

    @classmethod
    def decode(cls, content):
        cls.n_decoded += 1
        cls.meanwhile()
        return cls(content)


register_type(Tracked, "test.Tracked", Tracked.encode, Tracked.decode)


def encode(attributes):
    body, failures = attributes.encode()
    assert failures == ()
    return body


def saved(**values):
    """Return a map as it is after a load."""
    return AttributeMap.decode(encode(AttributeMap(values)))


def frames(*pairs):
    return b"".join(encode_frame(name, 0, dumps(value)) for name, value in pairs)


def read_back(attributes):
    """Return what another process would find."""
    return dict(AttributeMap.decode(encode(attributes)).items())
