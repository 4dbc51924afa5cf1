"""The shops of examples/ in a real browser: it keeps and sends the session's cookie as the adapters mean it to."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from examples.servers import SHOPS
from msm_fast import SessionId
from tests.browser import browsing
from tests.integration.shop import PATIENCE_S, Shop, opened

pytestmark = [pytest.mark.memcached, pytest.mark.slow]


@pytest.fixture
def chromium() -> Iterator[WebDriver]:
    with browsing(wait_s=5) as chromium:
        yield chromium


class Customer:
    """Somebody who clicks."""

    def __init__(self, chromium: WebDriver, shop: Shop) -> None:
        self._chromium = chromium
        self._shop = shop

    def come(self) -> None:
        """Open the shop's page, as often as it takes while a worker is being replaced."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._sees_the_shop():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def add(self, quantity: int) -> None:
        def fill_in() -> None:
            field = self._chromium.find_element(By.NAME, "quantity")
            field.clear()
            field.send_keys(str(quantity))
            self._click("Add")

        self._submit(fill_in, lambda: str(quantity) in self.quantities)

    def log_in(self) -> None:
        def fill_in() -> None:
            self._chromium.find_element(By.NAME, "username").send_keys("ada")
            self._chromium.find_element(By.NAME, "password").send_keys("countess")
            self._click("Log in")

        self._submit(fill_in, lambda: self.is_logged_in)

    def log_out(self) -> None:
        self._submit(lambda: self._click("Log out"), lambda: not self.is_logged_in)

    @property
    def quantities(self) -> list[str]:
        """What the page shows of the cart."""
        return re.findall(r"^(\d+) \W ", self._text, re.MULTILINE)

    @property
    def is_logged_in(self) -> bool:
        return "Welcome, ada" in self._text

    @property
    def cookie(self) -> dict[str, object]:
        """The session's, as the browser has it; empty where it has none."""
        return self._chromium.get_cookie(self._shop.cookie) or {}

    @property
    def session_id(self) -> SessionId:
        parsed = SessionId.parse(self.cookie["value"])
        assert parsed is not None
        return parsed

    @property
    def cookies_of_scripts(self) -> str:
        """What a script in the page can read."""
        return str(self._chromium.execute_script("return document.cookie"))

    def _submit(self, fill_in: Callable[[], None], is_done: Callable[[], bool]) -> None:
        """Send a form, and again if the answer was to come again and it was not done."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            fill_in()
            if self._chromium.title != "Shop":
                self.come()
            if is_done():
                return
            assert time.monotonic() < deadline

    def _sees_the_shop(self) -> bool:
        try:
            self._chromium.get(self._shop.address.geturl())
        except WebDriverException:  # nobody listens there just now
            return False
        return self._chromium.title == "Shop"

    @property
    def _text(self) -> str:
        return self._chromium.find_element(By.TAG_NAME, "body").text

    def _click(self, label: str) -> None:
        """Click on a button, and wait for the page that comes."""
        button = self._chromium.find_element(By.XPATH, f"//button[text()='{label}']")
        button.click()
        # Its driver may fail to look at the button just when one page gives way to the next.
        wait = WebDriverWait(self._chromium, PATIENCE_S, ignored_exceptions=[WebDriverException])
        wait.until(staleness_of(button))


@pytest.fixture
def visit(chromium: WebDriver) -> Callable[[Shop], Customer]:
    """Return a function that sends somebody to a shop."""

    def come(shop: Shop) -> Customer:
        customer = Customer(chromium, shop)
        customer.come()
        return customer

    return come


@pytest.mark.parametrize(("name", "options"), [*((name, ()) for name in SHOPS), ("django", ("--sticky",))])
def test_a_cart_and_a_login_outlive_a_node_and_a_worker(
    visit: Callable[[Shop], Customer], name: str, options: tuple[str, ...]
) -> None:
    with opened(name, *options) as shop:
        customer = visit(shop)
        customer.add(2)
        customer.log_in()
        customer.add(3)
        assert customer.is_logged_in
        before = customer.session_id
        assert before.node is not None
        os.kill(shop.nodes[before.node], signal.SIGKILL)
        os.kill(shop.workers[0], signal.SIGKILL)
        customer.come()
        assert (customer.quantities, customer.is_logged_in) == (["2", "3"], True)
        shop.wait_for(f"{before.node} is back")
        customer.come()
        customer.add(5)
        assert (customer.quantities, customer.is_logged_in) == (["2", "3", "5"], True)
        assert customer.session_id.plain == before.plain


@pytest.mark.parametrize("name", SHOPS)
def test_the_browser_keeps_the_cookie_from_scripts_and_other_sites_and_forgets_it_with_the_session(
    visit: Callable[[Shop], Customer], name: str
) -> None:
    with opened(name) as shop:
        customer = visit(shop)
        customer.add(2)
        began = customer.session_id
        assert {key: customer.cookie[key] for key in ("httpOnly", "sameSite", "path")} == {
            "httpOnly": True,
            "sameSite": "Lax",
            "path": "/",
        }
        assert shop.cookie not in customer.cookies_of_scripts
        customer.log_in()
        logged_in = customer.session_id
        assert logged_in.plain != began.plain, "a login gives another id"
        customer.log_out()
        assert customer.cookie.get("value") != str(logged_in)
        assert (customer.quantities, customer.is_logged_in) == ([], False)
