"""Rendezvous hashing in plain Python: slow, obvious, and the same to the last bit."""

import math

import xxhash

MASK = (1 << 64) - 1


def digest(text):
    return xxhash.xxh3_64_intdigest(text.encode() if isinstance(text, str) else text)


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def minus_log(u):
    """-ln(u), by the same operations on doubles in the same order as the kernel."""
    m, exponent = math.frexp(u)
    if m < math.sqrt(0.5):
        m *= 2.0
        exponent -= 1
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    total = 0.0
    for k in range(21, 0, -2):
        total = total * square + 1.0 / k
    return -(exponent * math.log(2) + 2.0 * s * total)


def ranked(nodes, key):
    """Every node id, best first. nodes: a list of ids, or a dict of id to weight."""
    weights = nodes if isinstance(nodes, dict) else dict.fromkeys(nodes, 1.0)
    is_weighted = len(set(weights.values())) > 1
    scale = -max(math.frexp(weight)[1] for weight in weights.values())

    def score(node):
        mixed = mix(digest(key) ^ digest(node))
        if not is_weighted:
            return mixed
        u = ((mixed >> 12) + 0.5) / 2**52
        return math.ldexp(weights[node], scale) / minus_log(u)

    return sorted(weights, key=lambda node: (-score(node), node))


def without(nodes, gone):
    """The same nodes but one."""
    if isinstance(nodes, dict):
        return {node: weight for node, weight in nodes.items() if node != gone}
    return [node for node in nodes if node != gone]
