"""What serves a shop: gunicorn or uvicorn, and before sticky workers nginx as docs/deploy.md has it."""

from __future__ import annotations

import getpass
import http.client
import os
import re
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msm_fast.cli.demo.processes import HOST, MORE_DIRECTORIES, Family, Server, wait_until

__all__ = ["SHOPS", "Nginx", "Shop", "ShopServer", "find_nginx"]

DEPLOY_PAGE = Path(__file__).parents[1] / "docs" / "deploy.md"


@dataclass(frozen=True)
class Shop:
    """How a shop is served.

    command: of the server, with {workers} for their number and {fd} for the open socket to listen on. packages: what
    has to be installed. cookie: the name of the session's. prepare: modules to be run before, with their arguments.
    """

    command: str
    packages: tuple[str, ...]
    cookie: str = "session"
    prepare: tuple[str, ...] = ()


GUNICORN = "gunicorn --config python:examples.gunicorn_settings --workers {workers} --threads 8 --bind fd://{fd} "
UVICORN = "uvicorn --workers {workers} --fd {fd} "
MANAGE = "examples.django_shop.manage "

SHOPS = {
    "flask": Shop(GUNICORN + "examples.flask_shop.app:app", ("flask", "gunicorn")),
    "django": Shop(
        GUNICORN + "examples.django_shop.wsgi:application",
        ("django", "gunicorn"),
        cookie="sessionid",
        prepare=(MANAGE + "migrate --verbosity 0", MANAGE + "createsuperuser --noinput --verbosity 0"),
    ),
    "fastapi": Shop(UVICORN + "examples.fastapi_shop.app:app", ("fastapi", "jinja2", "python_multipart", "uvicorn")),
}


class ShopServer(Server):
    """gunicorn or uvicorn with some workers on one port.

    environment: what its workers find beside this process's own.
    """

    def __init__(self, family: Family, name: str, shop: Shop, n_workers: int, environment: Mapping[str, str]) -> None:
        super().__init__(family, name)
        self._shop = shop
        self._n_workers = n_workers
        self._environment = {**environment, "GUNICORN_CMD_ARGS": ""}
        self._log = family.directory / f"{name}.log"

    def start(self) -> None:
        """Start it, on a port of the kernel's choice the first time, and wait until all its workers are there."""
        # This process closes its copy: once the server is dead nobody listens, and connections are refused.
        with socket.create_server((HOST, self.port)) as listener:
            self.port = listener.getsockname()[1]
            command = self._shop.command.format(workers=self._n_workers, fd=listener.fileno()).split()
            fds = [listener.fileno()]
            self.process = self._family.start([sys.executable, "-m", *command], self._log, self._environment, fds)
        wait_until(self._is_complete, self.process, self.name, self._log)

    def worker_pids(self) -> list[str]:
        """Return the processes of the workers that were started last, as the server's log has them."""
        said = self._log.read_text(errors="replace")
        pids = re.findall(r"(?:Booting worker with pid: |Started server process \[)(\d+)", said)
        return pids[-self._n_workers :]

    def _is_complete(self) -> bool:
        return len(self.worker_pids()) == self._n_workers and _answers(self.port)


def find_nginx() -> str | None:
    """Return the path of nginx, if it is installed."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *MORE_DIRECTORIES)))


class Nginx(Server):
    """nginx, which sends a request to the worker that its cookie names.

    path: of the program. workers: w1 and w2.
    """

    def __init__(self, family: Family, path: str, workers: Sequence[ShopServer], cookie: str) -> None:
        super().__init__(family, "nginx")
        self._path = path
        self._workers = workers
        self._cookie = cookie

    def start(self) -> None:
        """Start it, on a port that was free a moment ago, and wait until it passes requests on."""
        with socket.create_server((HOST, self.port)) as free:
            self.port = free.getsockname()[1]
        folder = self._family.directory / "nginx"
        folder.mkdir(exist_ok=True)
        configuration = folder / "nginx.conf"
        configuration.write_text(NGINX.format(user=_user(), folder=folder, servers=self._servers()))
        log = self._family.directory / "nginx.log"
        self.process = self._family.start([self._path, "-p", str(folder), "-c", str(configuration)], log, {})
        wait_until(lambda: _answers(self.port), self.process, self.name, log)

    def _servers(self) -> str:
        """Return what docs/deploy.md says, with the ports and the cookie of this shop."""
        (block,) = re.findall(r"^```nginx\n(.*?)^```", DEPLOY_PAGE.read_text(), re.MULTILINE | re.DOTALL)
        ports = {"8080": self.port, "8001": self._workers[0].port, "8002": self._workers[1].port}
        block = re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"{HOST}:{ports[match[1]]}", block)
        return block.replace("$cookie_session ", f"$cookie_{self._cookie} ")


NGINX = """{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""


def _user() -> str:
    """Return the line that lets root's nginx work in root's folder."""
    return f"user {getpass.getuser()};" if os.geteuid() == 0 else ""


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
