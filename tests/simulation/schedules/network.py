"""What lies between workers and nodes in a schedule, and what befalls the nodes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from msm_fast._core import wire
from msm_fast._core.replies import Reply, ReplyParser
from msm_fast.engine.effects import Batch, NodeFailure, Outcome, Replies
from tests.simulation.driver import SimulatedDriver, SimulatedNode
from tests.simulation.schedules.profiles import Harm, Profile


class Network:
    """Carries batches to nodes, of which it lets the victims fail: others are never away. It notes what happens."""

    def __init__(
        self, driver: SimulatedDriver, rng: random.Random, profile: Profile, note: Callable[[str], None]
    ) -> None:
        self._driver, self._rng, self._profile, self._note = driver, rng, profile, note
        self.victims = rng.sample(list(driver.nodes), rng.choice(profile.victims))
        self._zombies: dict[str, list[bytes]] = {name: [] for name in driver.nodes}
        """By node, what it was sent while it hung."""

    def deliver(self, batch: Batch) -> Outcome:
        outcome = self._answer(batch, self._driver.nodes[batch.node])
        answer = f"{outcome.kind}" if isinstance(outcome, NodeFailure) else [summary(reply) for reply in outcome]
        self._note(f"   {batch.node} {[summary(command) for command in batch.commands]} -> {answer}")
        return outcome

    def _answer(self, batch: Batch, node: SimulatedNode) -> Outcome:
        data = wire.encode(batch.commands, 1)
        is_of_another_life = batch.life not in (None, node.server.life)
        if node.fault is None:
            if is_of_another_life:
                return NodeFailure("restarted", False, "simulated: restarted")
            parser = ReplyParser(batch.commands, 1)
            assert parser.feed(node.server.handle(data))
            return Replies(parser.replies, node.server.life, node.server.compares)
        is_sent = node.fault not in ("refused", "unreachable") and not is_of_another_life
        if is_sent and node.fault == "timeout":
            self._zombies[batch.node].append(data)
        elif is_sent and self._rng.random() < 0.5:
            node.server.handle(data)  # the answer was lost, not the request
        return NodeFailure(node.fault, is_sent, f"simulated: {node.fault}")

    def let_zombies_act(self) -> None:
        """Let a node that hung carry out what it was sent meanwhile, long after the sender has given up."""
        for name in self.victims:
            if self._zombies[name] and self._driver.nodes[name].fault is None and self._rng.random() < 0.3:
                self._driver.nodes[name].server.handle(self._zombies[name].pop(0))

    def strike(self) -> None:
        """Let the victims fail, all in one way, or heal.

        Together, as in an outage of the network: with more nodes away than sessions have backups, but not all, what
        is found on the others may be old, which is a known limit.
        """
        fault = self._rng.choice(self._profile.faults)
        for name in self.victims:
            self._driver.nodes[name].fault = fault
        self._note(f"{' '.join(self.victims)} {fault or 'heals'}")
        if self._profile.harms and self._rng.random() < 0.3:
            harm = self._rng.choice(self._profile.harms)
            if harm == "fill":
                self._fill(self._rng.choice(self.victims))
            elif harm != "restart" or fault == "refused":
                self._harm(self._rng.choice(self.victims), harm)

    def _fill(self, name: str) -> None:
        """Let a node have no memory for more than it has, or have enough again."""
        server = self._driver.nodes[name].server
        server.room = 0 if server.room is None else None
        self._note(f"{name} {'has room' if server.room is None else 'is full'}")

    def _harm(self, name: str, harm: Harm) -> None:
        server = self._driver.nodes[name].server
        self._note(f"{name}: {harm}")
        keys = sorted(server.keys())
        if harm == "restart":
            server.restart()
            self._zombies[name].clear()
        elif harm == "flush":
            server.flush()
        elif keys:
            key = self._rng.choice(keys)
            item = server.peek(key)
            assert item is not None
            if harm == "evict":
                server.evict(key)
            else:
                at = self._rng.randrange(len(item.value))
                item.value = item.value[:at] + bytes([item.value[at] ^ 0x40]) + item.value[at + 1 :]

    def heal(self) -> None:
        """Let all faults end, and hung nodes carry out what is left."""
        for name, node in self._driver.nodes.items():
            node.fault = None
            node.server.room = None
            for data in self._zombies[name]:
                node.server.handle(data)


def summary(message: wire.Command | Reply) -> str:
    """Return what matters of a command or a reply: a write's conditions and record, a reply's copy."""
    if isinstance(message, wire.Command):
        head, _, value = wire.encode([message], 1).partition(b"\r\n")
        words = [word for word in head.decode().split()[2:] if word[0] in "CMvF"]
        return " ".join([message.verb, *words, _record(value)])
    return f"{message.status} c{message.cas} f{message.client_flags} {_record(message.value or b'')}".strip()


def _record(data: bytes) -> str:
    """Return the generation and the attribute names in a record."""
    if len(data) < 48:
        return ""
    return f"g{int.from_bytes(data[8:16], 'little')} {sorted(set(re.findall(rb'a[0-9]+', data[48:])))}"
