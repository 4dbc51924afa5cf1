"""What happens to bytes on their way: a strategy that damages an encoding as a fuzzer does."""

from hypothesis import strategies as st

# Lengths and heads that decoders have stumbled over.
INTERESTING = st.sampled_from(
    [
        *(b"\x00", b"\xff", b"\x7f", b"\x80", b"\xc1", b"\r\n", b"\n", b" "),
        *(b"\xff\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x80\x00\x00\x00", b"\xff" * 8),
        *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x04"),
    ]
)


@st.composite
def damaged(draw, encodings):
    """Draw one of encodings, and change, insert, delete, repeat, move or cut parts of it, once or more."""
    data = bytearray(draw(encodings))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 16)))
        part = bytes(data[start:end])
        match draw(st.sampled_from(["flip", "insert", "delete", "repeat", "move", "cut", "overwrite"])):
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                data[start:start] = draw(st.one_of(INTERESTING, st.binary(max_size=8)))
            case "delete":
                del data[start:end]
            case "repeat":
                data[end:end] = part * draw(st.integers(1, 70))
            case "move":
                del data[start:end]
                at = draw(st.integers(0, len(data)))
                data[at:at] = part
            case "cut":
                del data[start:]
            case "overwrite":
                put = draw(INTERESTING)
                data[start : start + len(put)] = put
    return bytes(data)
