"""memcached's meta replies, read from a whole stream with regular expressions."""

import re

NUMBER = rb"(0|[1-9][0-9]*)"
FLAG = re.compile(rb"[A-Za-z][\x21-\x7e]*")
ANSWERS = {
    "mg": {"HD", "VA", "EN"},
    "mg v": {"VA", "EN"},
    "ms": {"HD", "NS", "EX", "NF"},
    "md": {"HD", "NF", "EX"},
    "mn": {"MN"},
    "version": {"VERSION"},
}
MAX_LINE = 2048
MAX_VALUE = 1 << 30
U32, U64 = (1 << 32) - 1, (1 << 64) - 1


class RefusedError(Exception):
    pass


class IncompleteError(Exception):
    pass


def require(condition):
    if not condition:
        raise RefusedError


def number(digits, maximum):
    require(re.fullmatch(NUMBER, digits))
    require(int(digits) <= maximum)
    return int(digits)


def read_flags(tokens):
    flags = {"cas": 0, "client_flags": 0, "ttl_s": -1, "opaque": None}
    require(len({token[:1] for token in tokens}) == len(tokens))
    for token in tokens:
        require(FLAG.fullmatch(token))
        letter, argument = token[:1], token[1:]
        if letter == b"c":
            flags["cas"] = number(argument, U64)
        elif letter == b"f":
            flags["client_flags"] = number(argument, U32)
        elif letter == b"O":
            flags["opaque"] = number(argument, U64)
        elif letter == b"t" and argument != b"-1":
            flags["ttl_s"] = number(argument, U32)
    return flags


def read_reply(verb, opaque, stream, at):
    """((status, value, cas, client_flags, ttl_s, text), where the next reply begins)."""
    end = stream.find(b"\n", at, at + MAX_LINE)
    if end < 0:
        raise RefusedError if len(stream) - at >= MAX_LINE else IncompleteError
    line, at = stream[at : end + 1], end + 1
    require(line.endswith(b"\r\n"))
    word, *tokens = line[:-2].split(b" ")
    text = line[len(word) + 1 : -2]
    if word == b"SERVER_ERROR":
        shown = "".join(chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in text[:200])
        return ("SERVER_ERROR", None, 0, 0, -1, shown), at
    status = word.decode("latin-1")
    require(status in ANSWERS[verb])
    if status == "MN":
        require(not tokens)
        return ("MN", None, 0, 0, -1, ""), at
    if status == "VERSION":
        require(re.fullmatch(rb"[\x20-\x7e]+", text))
        return ("VERSION", None, 0, 0, -1, text[:200].decode()), at
    value = None
    if status == "VA":
        require(tokens)
        length = number(tokens.pop(0), MAX_VALUE)
    flags = read_flags(tokens)
    require(flags["opaque"] == opaque)
    if status == "VA":
        value, end = stream[at : at + length], stream[at + length : at + length + 2]
        if len(end) < 2:
            raise IncompleteError
        require(end == b"\r\n")
        at += length + 2
    return (status, value, flags["cas"], flags["client_flags"], flags["ttl_s"], ""), at


def parse(verbs, first_opaque, stream):
    """(the replies that are complete, "complete" or "incomplete" or "refused")."""
    replies, at = [], 0
    try:
        for i, verb in enumerate(verbs):
            reply, at = read_reply(verb, (first_opaque + i) & U64, stream, at)
            replies.append(reply)
        require(at == len(stream))
    except RefusedError:
        return replies, "refused"
    except IncompleteError:
        return replies, "incomplete"
    return replies, "complete"
