"""The shops of examples/, opened as their README says: nothing is lost with a node and a worker."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import pytest

from examples.servers import SHOPS
from msm_fast import SessionId, SessionManager
from tests.integration.conftest import Nodes
from tests.integration.shop import PATIENCE_S, Shop, opened
from tests.integration.test_demo import processes_with
from tests.timeouts import UNHURRIED

pytestmark = [pytest.mark.memcached, pytest.mark.slow]

N_CUSTOMERS = 6


class BrokenOff(Exception):
    """No answer, or one that says to come again: what was asked for may or may not have been done."""


class Customer:
    """A browser that fills in the shop's forms, and knows what was acknowledged.

    Each line has another quantity, so that it can be told from all others.
    """

    def __init__(self, shop: Shop) -> None:
        self._address = shop.address
        self._cookie = shop.cookie
        self.cookies: dict[str, str] = {}
        self.acknowledged: list[int] = []
        self._unsure: set[int] = set()
        self._last = 0

    @property
    def session_id(self) -> SessionId:
        parsed = SessionId.parse(self.cookies[self._cookie])
        assert parsed is not None
        return parsed

    def add(self) -> None:
        """Put one more line into the cart."""
        self._last += 1
        try:
            self._submit("/cart", item="tea", quantity=self._last)
        except BrokenOff:
            self._unsure.add(self._last)
        else:
            self.acknowledged.append(self._last)

    def log_in(self) -> None:
        self._submit("/login", username="ada", password="countess")

    def log_out(self) -> None:
        self._submit("/logout")

    def look(self) -> dict[str, Any]:
        """Return what the shop says of the cart and the customer."""
        answer: dict[str, Any] = json.loads(self._again(lambda: self._send("GET", "/cart")))
        return answer

    def check(self) -> None:
        """Compare the cart and the login with what was acknowledged."""
        seen = self.look()
        quantities = [line["quantity"] for line in seen["cart"]]
        assert set(self.acknowledged) <= set(quantities) <= {*self.acknowledged, *self._unsure}
        assert quantities == sorted(set(quantities))
        assert seen["customer"] == "ada"

    def _submit(self, path: str, **fields: Any) -> None:
        page = self._again(lambda: self._send("GET", "/"))
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)"', page))
        self._send("POST", path, urlencode({**hidden, **fields}))

    def _again(self, request: Callable[[], str]) -> str:
        """Make a request that changes nothing, until it is answered."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return request()
            except BrokenOff:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def _send(self, method: str, path: str, body: str | None = None) -> str:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["Origin"] = self._address.geturl().rstrip("/")
        assert self._address.hostname is not None
        connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                text = response.read().decode()
            except (OSError, http.client.HTTPException) as error:
                raise BrokenOff from error
        if response.status in (502, 503, 504):
            raise BrokenOff(text)
        assert response.status in ((200,) if body is None else (302, 303)), text
        for header in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(header).items():
                self.cookies[name] = morsel.value
        return text


def arrive(customer: Customer) -> SessionId:
    """Begin a cart, log in, and return the session's id from before."""
    while not customer.acknowledged:
        customer.add()
    before = customer.session_id
    customer.log_in()
    return before


@contextlib.contextmanager
def shopping(customers: Sequence[Customer]) -> Iterator[Callable[[int], None]]:
    """Let all customers add lines at once and compare their carts; give what waits until each has so many more."""
    is_over = threading.Event()

    def shop(customer: Customer) -> None:
        while not is_over.is_set():
            customer.add()
            customer.check()
            time.sleep(0.03)

    with ThreadPoolExecutor(len(customers)) as executor:
        threads = [executor.submit(shop, customer) for customer in customers]

        def wait_for(n_lines: int) -> None:
            targets = [len(customer.acknowledged) + n_lines for customer in customers]
            deadline = time.monotonic() + PATIENCE_S
            while any(len(customer.acknowledged) < target for customer, target in zip(customers, targets, strict=True)):
                for thread in threads:
                    if thread.done():
                        thread.result()
                assert time.monotonic() < deadline
                time.sleep(0.02)

        try:
            yield wait_for
        finally:
            is_over.set()
        for thread in threads:
            thread.result()


def wait_for_new_worker(shop: Shop) -> None:
    """Wait until somebody who comes for the first time is served by a worker that was not there at first."""
    deadline = time.monotonic() + PATIENCE_S
    while Customer(shop).look()["worker"] in shop.workers:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("options", [(), ("--sticky",)], ids=["non-sticky", "sticky"])
@pytest.mark.parametrize("name", SHOPS)
def test_no_line_and_no_login_is_lost_with_a_node_and_a_worker(name: str, options: tuple[str, ...]) -> None:
    with opened(name, *options) as shop:
        assert (len(shop.nodes), len(set(shop.workers))) == (2, 2)
        customers = [Customer(shop) for _ in range(N_CUSTOMERS)]
        with ThreadPoolExecutor(N_CUSTOMERS) as executor:
            ids_before_login = list(executor.map(arrive, customers))
        ids = [customer.session_id for customer in customers]
        assert not {one.plain for one in ids} & {one.plain for one in ids_before_login}
        assert all((one.route is not None) == bool(options) for one in ids)
        with shopping(customers) as wait_for:
            wait_for(3)
            os.kill(shop.workers[0], signal.SIGKILL)
            os.kill(shop.nodes["n1"], signal.SIGKILL)
            wait_for(5)
            wait_for_new_worker(shop)
            shop.wait_for("n1 is back")
            wait_for(5)
        for customer, at_login, before in zip(customers, ids, ids_before_login, strict=True):
            customer.check()
            assert customer.session_id.plain == at_login.plain
            intruder = Customer(shop)
            intruder.cookies[shop.cookie] = str(before)
            assert intruder.look()["cart"] == []


@pytest.mark.parametrize("name", SHOPS)
def test_after_a_logout_nobody_has_the_session(name: str) -> None:
    with opened(name) as shop:
        customer, intruder = Customer(shop), Customer(shop)
        arrive(customer)
        intruder.cookies.update(customer.cookies)
        assert intruder.look()["customer"] == "ada"
        customer.log_out()
        for who in (customer, intruder):
            assert (who.look()["customer"], who.look()["cart"]) == (None, [])


def test_nodes_that_are_there_already_are_used(nodes: Nodes) -> None:
    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    with opened("flask", nodes=text) as shop:
        assert shop.nodes == {}
        customer = Customer(shop)
        customer.add()
        with SessionManager(text, timeouts=UNHURRIED) as manager:
            session = manager.load(customer.cookies[shop.cookie])
            assert session is not None
            assert session["cart"] == [{"item": "tea", "quantity": 1}]


def test_ctrl_c_ends_all_that_was_started() -> None:
    with opened("flask", "--sticky") as shop:
        assert len(processes_with(shop.token)) > 6
        assert shop.close() == 0
        assert processes_with(shop.token) == []
