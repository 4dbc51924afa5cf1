"""The grammar of session ids as one regular expression."""

import re

GRAMMAR = re.compile(r"([A-Za-z0-9_~]{1,128})(?:-([A-Za-z0-9_]{1,32}))?(?:\.([A-Za-z0-9_-]{1,64}))?", re.ASCII)


def parse(text):
    """(plain, node, route), or None."""
    if type(text) is not str or len(text) > 200:
        return None
    match = GRAMMAR.fullmatch(text)
    return match and match.groups()


def compose(plain, node, route):
    """The id of these parts, or None if there is none."""
    text = plain + ("" if node is None else f"-{node}") + ("" if route is None else f".{route}")
    return text if parse(text) == (plain, node, route) else None
