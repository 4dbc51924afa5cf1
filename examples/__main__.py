"""Open one of the shops: ``python -m examples flask``, ``python -m examples django --sticky``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import NoReturn

from examples.servers import SHOPS, Nginx, Shop, ShopServer, find_nginx
from msm_fast.cli.demo.processes import HOST, DemoError, Family, MemcachedNode, Server, find_memcached

REST_S = 3.0
"""How long what has ended stays away: long enough to see what it is like without it."""

ACCOUNT = {
    "DJANGO_SUPERUSER_USERNAME": "ada",
    "DJANGO_SUPERUSER_PASSWORD": "countess",
    "DJANGO_SUPERUSER_EMAIL": "ada@localhost.localdomain",
}


def main() -> int:
    """Open a shop until Ctrl-C, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples",
        description="Open a shop on the loopback interface: two memcached servers, or those that MSM_FAST_NODES names, "
        "and two workers. Kill what you like: carts and logins stay.",
    )
    parser.add_argument("shop", choices=SHOPS)
    parser.add_argument("--sticky", action="store_true", help="serve each session from the memory of one worker")
    arguments = parser.parse_args()
    shop = SHOPS[arguments.shop]
    missing = [name for name in shop.packages if importlib.util.find_spec(name) is None]
    if missing:
        print(f"This shop needs {' and '.join(missing)}: pip install -e . --group examples", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    family = Family()
    try:
        keep_up(open_shop(family, shop, is_sticky=arguments.sticky))
    except DemoError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("Closed.")
        return 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending already
        family.close()


def open_shop(family: Family, shop: Shop, *, is_sticky: bool) -> list[Server]:
    """Start all that the shop needs, tell of it, and return it."""
    nodes = start_nodes(family)
    environment = {
        "MSM_FAST_NODES": os.environ.get("MSM_FAST_NODES") or ",".join(node.address for node in nodes),
        "MSM_FAST_ROUTE": "",
        "SHOP_DATABASE": str(family.directory / "shop.sqlite3"),
    }
    for command in shop.prepare:
        environment_of_command = {**os.environ, **environment, **ACCOUNT}
        subprocess.run([sys.executable, "-m", *command.split()], env=environment_of_command, check=True)
    if is_sticky:
        workers = [
            ShopServer(family, route, shop, 1, {**environment, "MSM_FAST_ROUTE": route}) for route in ("w1", "w2")
        ]
    else:
        workers = [ShopServer(family, "workers", shop, 2, environment)]
    for server in workers:
        server.start()
    balancers = start_balancers(family, workers, shop.cookie) if is_sticky else []
    invite(nodes, workers, balancers, family)
    return [*nodes, *workers, *balancers]


def start_nodes(family: Family) -> list[MemcachedNode]:
    """Start two memcached servers, none if there are some already."""
    if os.environ.get("MSM_FAST_NODES"):
        return []
    path = find_memcached()
    nodes = [MemcachedNode(family, path, node_id) for node_id in ("n1", "n2")]
    for node in nodes:
        node.start()
    return nodes


def start_balancers(family: Family, workers: Sequence[ShopServer], cookie: str) -> list[Nginx]:
    """Start nginx before sticky workers, if it is installed."""
    path = find_nginx()
    balancers = [Nginx(family, path, workers, cookie)] if path else []
    for balancer in balancers:
        balancer.start()
    return balancers


def invite(
    nodes: Sequence[MemcachedNode], workers: Sequence[ShopServer], balancers: Sequence[Nginx], family: Family
) -> None:
    """Say where the shop is and what may be killed."""
    for server in balancers or workers:
        say(f"The shop is at http://{HOST}:{server.port}/")
    if len(workers) > 1 and not balancers:
        say("There is no nginx to send each client to its worker: stay with one address, until you kill its worker.")
    say("Log in as ada with the password countess.")
    processes = [f"{node.name} {node.process.pid}" for node in nodes if node.process]
    processes += [f"worker {pid}" for server in workers for pid in server.worker_pids()]
    say(f"Kill what you like and reload the page: {', '.join(processes)}")
    say(f"It is started again by itself. The logs are in {family.directory} until Ctrl-C ends it all.")


def keep_up(servers: Iterable[Server]) -> NoReturn:
    """Start again what has ended, a while later."""
    while True:
        time.sleep(0.2)
        for server in servers:
            if server.process is not None and server.process.poll() is not None:
                say(f"{server.name} has ended.")
                server.kill()
                time.sleep(REST_S)
                server.start()
                say(f"{server.name} is back: process {server.process.pid}")


def say(sentence: str) -> None:
    """Tell the user, at once."""
    print(sentence, flush=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that every finally on the way out ends its children.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
