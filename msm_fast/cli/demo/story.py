"""The order of events: servers and workers start, sessions are made, a server dies and comes back, a worker dies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import msm_fast
from msm_fast.cli.demo.load import Load, counters
from msm_fast.cli.demo.processes import HOST, DemoError, Family, MemcachedNode, ShopWorker, find_memcached
from msm_fast.cli.demo.report import Phase, Report

__all__ = ["Options", "tell"]

NODE_IDS = ("n1", "n2", "n3")
WORKER_NAMES = ("w1", "w2")
# For a phase whose sessions cannot all be checked: then the report says which were not.
PHASE_LIMIT_S = 30.0


@dataclass(frozen=True)
class Options:
    """What the command line chose. phase_s: the least time of load between two events."""

    once: bool = False
    local: bool = False
    n_sessions: int = 300
    phase_s: float = 3.0


def tell(options: Options) -> int:
    """Run the demo and return its exit status: 0 all is well, 1 it is not, 2 the demo could not run."""
    console = Console(highlight=False)
    family = Family()
    try:
        memcached = None if options.local else _memcached_or_none(console)
        story = Story(options, console, family, memcached)
        try:
            report = story.play()
        finally:
            story.load.stop()
        _print_report(console, report)
        if not options.once:
            story.stay_up()
        return 0 if report.is_well else 1
    except DemoError as error:
        console.print(str(error), soft_wrap=True, style="red", markup=False)
        return 2
    finally:
        family.close()


def _memcached_or_none(console: Console) -> str | None:
    try:
        return find_memcached()
    except DemoError as error:
        console.print(f"{error} Until then this shows the embedded local mode.", soft_wrap=True, markup=False)
        return None


def _print_report(console: Console, report: Report) -> None:
    console.print()
    console.print(report.table())
    console.print(report.verdict(), soft_wrap=True, style="green" if report.is_well else "bold red")
    for complaint in report.complaints():
        console.print(complaint, soft_wrap=True, style="red", markup=False)


class Story:
    """One run of the demo. memcached: the server's path; None: local mode, one worker and no nodes."""

    def __init__(self, options: Options, console: Console, family: Family, memcached: str | None) -> None:
        self._options = options
        self._console = console
        self._nodes = [MemcachedNode(family, memcached, node_id) for node_id in NODE_IDS] if memcached else []
        self._public = socket.create_server((HOST, 0))
        self._workers: list[ShopWorker] = []
        self._family = family
        self._report = Report(options.n_sessions, msm_fast.Timeouts().request)
        self.load = Load(self._workers, options.n_sessions)

    def play(self) -> Report:
        """Tell the whole story and return what was measured."""
        self._start_children()
        self._phase("all up" if self._nodes else "local", self.load.start)
        if self._nodes:
            self._lose_a_node()
            self._lose_a_worker()
        else:
            self._say("There is one worker and no node: the sessions live, and end, with the worker's memory.")
        self.load.stop()
        return self._report

    def stay_up(self) -> None:
        """Keep the shop open, with all nodes and workers, until Ctrl-C."""
        for worker in self._workers:
            if worker.process is None:
                worker.start()
        try:
            self._invite()
            threading.Event().wait()
        except KeyboardInterrupt:
            self._say("Closed.")

    def _invite(self) -> None:
        self._say(f"The shop stays open at [bold]http://{HOST}:{self._public.getsockname()[1]}/[/bold]")
        if self._nodes:
            children = [(node.name, node.process) for node in self._nodes]
            children += [(worker.name, worker.process) for worker in self._workers]
            pids = ", ".join(f"{name} {process.pid}" for name, process in children if process)
            self._say(f"Kill what you like and reload the page: {pids}. Ctrl-C ends it all.")
        else:
            self._say("Ctrl-C ends it.")

    def _start_children(self) -> None:
        self._say(f"The logs of all processes are in {self._family.directory} while this runs")
        for node in self._nodes:
            node.start()
            assert node.process is not None
            self._say(f"memcached {node.name} listens on port {node.port} (process {node.process.pid})")
        addresses = ",".join(node.address for node in self._nodes)
        for name in WORKER_NAMES if self._nodes else WORKER_NAMES[:1]:
            worker = ShopWorker(self._family, name, addresses, self._public)
            worker.start()
            self._workers.append(worker)
            assert worker.process is not None
            self._say(f"Worker {name} serves the shop on port {worker.port} (process {worker.process.pid})")

    def _lose_a_node(self) -> None:
        """Kill the node that holds most sessions, check them all, and bring it back empty."""
        held = self.load.nodes()
        victim = max(self._nodes, key=lambda node: held.get(node.name, 0))

        def kill(phase: Phase) -> None:
            self.load.enter(phase)
            pid = victim.kill()
            self._say(
                f"[bold]{victim.name} (process {pid}) was killed[/bold], with {held.get(victim.name, 0)} sessions"
            )

        def restart(phase: Phase) -> None:
            victim.start()
            self.load.enter(phase)
            self._say(f"[bold]{victim.name} is back[/bold], on its old port, empty")

        self._phase(f"{victim.name} killed", kill)
        self._phase(f"{victim.name} back", restart)

    def _lose_a_worker(self) -> None:
        victim = self._workers[0]

        def kill(phase: Phase) -> None:
            self.load.enter(phase)
            pid = victim.kill()
            self._say(f"[bold]Worker {victim.name} (process {pid}) was killed[/bold]")

        self._phase(f"{victim.name} killed", kill)

    def _phase(self, name: str, event: Callable[[Phase], None]) -> None:
        """Let event happen, then wait under load until every session has been read again and compared."""
        phase = Phase(name)
        self._report.phases.append(phase)
        alive = [worker for worker in self._workers if worker.process]
        counted_before = counters(alive)
        event(phase)
        began = time.monotonic()
        self._watch(phase, began)
        counted = counters([worker for worker in self._workers if worker.process])
        for pid, (n_requests, n_round_trips) in counted.items():
            requests_before, round_trips_before = counted_before.get(pid, (0, 0))
            phase.requests_counted += n_requests - requests_before
            phase.round_trips += n_round_trips - round_trips_before
        self._say(
            f"{len(phase.intact)} of {self._options.n_sessions} sessions are as acknowledged, "
            f"{len(phase.failures)} requests failed, after {time.monotonic() - began:.1f} s of load"
        )
        if len(self._report.phases) == 1 and self._nodes:
            held = ", ".join(f"{n} on {node_id}" for node_id, n in self.load.nodes().items())
            self._say(f"Sessions by node: {held}")

    def _watch(self, phase: Phase, began: float) -> None:
        n_sessions = self._options.n_sessions
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.completed} of {task.total}"),
        )
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            creating = progress.add_task("created", total=n_sessions, visible=self.load.n_created < n_sessions)
            checking = progress.add_task(phase.name, total=n_sessions)
            while True:
                is_checked = self.load.is_checked()
                progress.update(creating, completed=self.load.n_created)
                progress.update(checking, completed=len(phase.intact))
                elapsed_s = time.monotonic() - began
                if (is_checked and elapsed_s >= self._options.phase_s) or elapsed_s > PHASE_LIMIT_S:
                    return
                time.sleep(0.05)

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True)
