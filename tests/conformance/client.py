"""A site with a page for each thing a request can do to its session, the workers that serve it, and its visitors.

No server stands between: a visitor calls the worker's WSGI application, through wsgiref's validator.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode
from wsgiref.validate import validator

from msm_fast import Session, SessionManager
from msm_fast.integrations.cookies import CookieSettings
from msm_fast.integrations.wsgi import ENVIRON_KEY, SessionMiddleware
from tests.integration.test_manager import wait_until

Form = dict[str, str]
Page = Callable[[Session, Form], None]


class Redirect(Exception):
    """Raised by a page that sends the visitor elsewhere; what it wrote to the session is stored."""


def show(session: Session, form: Form) -> None:
    """Look at the session."""
    len(session)


def put(session: Session, form: Form) -> None:
    """Write each field of the form."""
    session.update(form)


def remove(session: Session, form: Form) -> None:
    del session[form["name"]]


def login(session: Session, form: Form) -> None:
    session.rotate_id()
    session["user"] = form["user"]
    if "wanted" in session:
        raise Redirect(session.pop("wanted"))


def protected(session: Session, form: Form) -> None:
    if "user" not in session:
        session["wanted"] = "/protected"
        raise Redirect("/login")


def invalidate(session: Session, form: Form) -> None:
    session.invalidate()


def ignore(session: Session, form: Form) -> None:
    """Serve a page for which the session is of no interest."""


PAGES: dict[str, Page] = {
    "GET /": show,
    "POST /": put,
    "POST /remove": remove,
    "POST /login": login,
    "GET /protected": protected,
    "POST /invalidate": invalidate,
    "GET /static": ignore,
}


class WebWorker:
    """One worker process of the site. pages: by method and path; a test may add to them."""

    def __init__(self, manager: SessionManager, cookie: CookieSettings | None = None) -> None:
        self.manager = manager
        self.pages: dict[str, Page] = dict(PAGES)
        self.app = validator(SessionMiddleware(self._serve, manager, cookie))

    def settle(self) -> None:
        """Wait until nothing is left to be written behind the requests."""
        wait_until(lambda: len(self.manager._ctx.behind) == 0)

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session: Session = environ[ENVIRON_KEY]
        form = dict(parse_qsl(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()))
        page = self.pages[f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"]
        status, headers = "200 OK", [("Content-Type", "application/json")]
        try:
            page(session, form)
        except Redirect as redirect:
            status, headers = "302 Found", [*headers, ("Location", str(redirect))]
        seen = {"id": session.id, "attributes": dict(session)} if page is not ignore else {}
        start_response(status, headers)
        return [json.dumps(seen).encode()]


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    content: bytes

    def header(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.content)["attributes"]
        return found

    @property
    def id(self) -> str:
        """The id that the application saw."""
        return str(json.loads(self.content)["id"])


@dataclass
class Client:
    """A visitor, who takes the cookie along to whichever worker is asked. id: the session id in it."""

    id: str | None = None
    cookie_name: str = "session"
    keeps_cookies: bool = True
    sent_before: str = field(default="", repr=False)
    """Further cookies, in front of the session's."""

    def get(self, worker: WebWorker, path: str = "/") -> Response:
        return self._send(worker, "GET", path, b"")

    def post(self, worker: WebWorker, path: str = "/", **form: str) -> Response:
        return self._send(worker, "POST", path, urlencode(form).encode())

    def _send(self, worker: WebWorker, method: str, path: str, body: bytes) -> Response:
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        if self.id is not None:
            environ["HTTP_COOKIE"] = f"{self.sent_before}{self.cookie_name}={self.id}"
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            started.append((status, headers))
            return lambda data: None

        chunks = worker.app(environ, start_response)
        try:
            content = b"".join(chunks)
        finally:
            chunks.close()  # type: ignore[attr-defined]
        (status, headers) = started[-1]
        response = Response(int(status[:3]), headers, content)
        for value in response.all("set-cookie"):
            if self.keeps_cookies:
                self.id = None if "Max-Age=0" in value else value.partition(";")[0].partition("=")[2]
        return response
