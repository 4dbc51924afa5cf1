from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.unit.integrations.flask.shop import make_app


@pytest.fixture
def app() -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
