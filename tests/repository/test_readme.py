"""The README's example does what the README says."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from starlette.testclient import TestClient

from msm_fast import Session, SessionId, SessionManager, Settings, Tls
from tests.django_site import serve
from tests.unit.integrations.test_wsgi import Browser

README = (Path(__file__).parents[2] / "README.md").read_text()


NODES = '"n1:10.0.0.1:11211,n2:10.0.0.2:11211"'
EXAMPLE, SCOPE_EXAMPLE, ASYNC_EXAMPLE, DJANGO_EXAMPLE, FLASK_EXAMPLE, ASGI_EXAMPLE = re.findall(
    r"```python\n(.*?)```", README, re.DOTALL
)


def test_the_example_counts_visits() -> None:
    code = EXAMPLE
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    application: Callable[..., Any] = namespace["application"]
    browser = Browser(application)
    assert [browser.send().body for _ in range(3)] == [b"visit 1", b"visit 2", b"visit 3"]


class Visitor:
    """Keeps the cookie as the README says, of requests that do something else in its place."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.cookie: str | None = None
        self.told: str | None = None

    def visit(self, act: str = "") -> Session:
        code = SCOPE_EXAMPLE
        if act:
            code, n_replaced = re.subn(r"session\[.*", act, code)
            assert n_replaced == 1
        namespace: dict[str, Any] = {"manager": self.manager, "cookie": self.cookie}
        exec(code, namespace)
        self.told = namespace["set_cookie"]
        if self.told is not None:
            self.cookie = self.told or None
        session: Session = namespace["session"]
        return session


def test_the_example_without_a_framework_counts_visits_by_the_cookie_it_says() -> None:
    with SessionManager() as manager:
        visitor = Visitor(manager)
        assert [visitor.visit()["visits"] for _ in range(3)] == [1, 2, 3]


def test_it_gives_no_cookie_for_a_session_that_is_stored_nowhere() -> None:
    with SessionManager() as manager:
        visitor = Visitor(manager)
        visitor.visit("session.get('user')")
        assert visitor.told is None
        visitor.cookie = dead = str(SessionId.generate())
        visitor.visit("session.get('user')")
        assert (visitor.told, visitor.cookie) == (None, dead)
        assert visitor.visit()["visits"] == 1
        assert visitor.cookie not in (None, dead)


def test_it_changes_the_cookie_at_login_and_takes_it_away_at_logout() -> None:
    with SessionManager() as manager:
        visitor = Visitor(manager)
        visitor.visit()
        before = visitor.cookie
        assert visitor.visit("session.rotate_id()")["visits"] == 1
        assert visitor.cookie not in (None, before)
        assert visitor.visit()["visits"] == 2
        visitor.visit("session.invalidate()")
        assert visitor.told == ""


def test_the_asyncio_example_stores_a_session() -> None:
    assert NODES in ASYNC_EXAMPLE
    namespace: dict[str, Any] = {"cookie": None}
    code = ASYNC_EXAMPLE.replace(NODES, "") + "        assert (await manager.load(session.id))['cart'] == [1, 2]\n"
    exec(code, namespace)
    asyncio.run(namespace["main"]())


def test_the_django_example_keeps_a_cart() -> None:
    assert NODES in DJANGO_EXAMPLE
    settings: dict[str, Any] = {}
    exec(DJANGO_EXAMPLE.replace(NODES, '""'), {}, settings)
    settings["MIDDLEWARE"].remove(...)
    assert settings.pop("INSTALLED_APPS")[-1] in django_settings.INSTALLED_APPS
    with serve("threads", **settings) as site:
        browser = site.browser()
        assert [browser.post("append", item=item).content for item in ("apple", "pear")] == [b"1", b"2"]


def test_the_flask_example_keeps_a_cart() -> None:
    assert NODES in FLASK_EXAMPLE
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(FLASK_EXAMPLE.replace(NODES, "None"), namespace)
    client = namespace["app"].test_client()
    answers = [client.post(f"/cart/{item}", base_url="https://localhost").json for item in ("apple", "pear")]
    assert answers == [["apple"], ["apple", "pear"]]


def test_the_asgi_example_counts_visits() -> None:
    assert NODES in ASGI_EXAMPLE
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(ASGI_EXAMPLE.replace(NODES, "None"), namespace)
    with TestClient(namespace["app"], base_url="https://testserver") as client:
        assert [client.post("/visits").json() for _ in range(3)] == [{"visits": n} for n in (1, 2, 3)]


def test_the_table_of_settings_gives_their_real_defaults() -> None:
    from msm_fast import Breaker, NearCacheSettings, Reconnect, Retry, Timeouts  # noqa: F401 - named in the table

    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", README, re.MULTILINE)
    rows += re.findall(r"^\| `(\w+)` \| (\d+) \|", README, re.MULTILINE)
    assert len(rows) >= 10
    for name, default in rows:
        assert getattr(Settings(), name) == eval(default), name


def test_the_example_of_a_file_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "app.toml"
    path.write_text(text)
    settings = Settings.from_toml(path)
    assert [node.node_id for node in settings.nodes] == ["n1", "n2"]
    assert settings.credentials == "shop:correct-horse"
    assert isinstance(settings.tls, Tls)
    assert settings.tls.server_hostname == "memcached.internal"
