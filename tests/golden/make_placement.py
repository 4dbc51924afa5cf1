"""Write placement.json: what the plain-Python oracle ranks.

Run at the root of the tree: python -m tests.golden.make_placement.

The vectors are a promise to running clusters. They change only with a major release.
"""

import json
from pathlib import Path

from tests.reference import placement

CLUSTERS = [
    ["n1"],
    ["n1", "n2", "n3"],
    [f"n{i}" for i in range(10)],
    ["node_a", "node_b", "ein Knoten mit Ümlaut"],
    {"small": 1.0, "middle": 2.0, "big": 5.5},
    {f"n{i}": 0.25 * (i + 1) for i in range(7)},
]
KEYS = ["", "a", "foo", "0123456789abcdef" * 2, "sitzung~ä", "x" * 1000, "\N{SNOWMAN}", *map(str, range(20))]


def main():
    vectors = [
        {"nodes": nodes, "key": key, "ranked": placement.ranked(nodes, key)} for nodes in CLUSTERS for key in KEYS
    ]
    path = Path(__file__).with_name("placement.json")
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    path.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
