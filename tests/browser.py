"""Chromium, which keeps and sends cookies as the people's browsers do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

__all__ = ["browsing"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # which is small in containers
    "--no-first-run",
    # It is to ask nobody but the shop.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
)


@contextmanager
def browsing(wait_s: float) -> Iterator[WebDriver]:
    """Start a browser with a profile of its own, and end it afterwards; without one, skip the test.

    wait_s: for how long it looks for what is to be on a page.
    """
    browser, driver = next(filter(None, map(shutil.which, _NAMES)), None), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium or its driver is not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(option)
    with webdriver.Chrome(options, Service(driver)) as chromium:
        chromium.implicitly_wait(wait_s)
        yield chromium
