"""The package's own loggers, and what a site may do with the lines."""

import logging
from collections.abc import Callable, Iterator

import pytest

from msm_fast.logs import Log

NAME = "msm_fast.test_logs"

Handle = Callable[[logging.LogRecord], None]


class Handler(logging.Handler):
    """One of a site's, with a filter that does what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.does: Handle = lambda record: None
        self.addFilter(self._look)

    def _look(self, record: logging.LogRecord) -> bool:
        self.does(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.filename} {record.levelname} {record.getMessage()}")


@pytest.fixture
def handler() -> Iterator[Handler]:
    handler, logger = Handler(), logging.getLogger(NAME)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def fail(record: logging.LogRecord) -> None:
    raise RuntimeError("Working outside of request context.")


def test_a_line_is_said_to_come_from_where_it_was_written(handler: Handler) -> None:
    log = Log(NAME)
    log.warning("node %s", "n1")
    try:
        raise OSError("gone")
    except OSError:
        log.exception("a probe failed")
    assert handler.messages == ["test_logs.py WARNING node n1", "test_logs.py ERROR a probe failed"]


def test_what_a_filter_of_the_site_raises_is_printed_and_reaches_nobody(
    handler: Handler, capsys: pytest.CaptureFixture[str]
) -> None:
    handler.does = fail
    Log(NAME).warning("node %s is down", "n1")
    printed = capsys.readouterr().err
    assert "Working outside of request context." in printed
    assert "node n1 is down" in printed  # else nobody would be told


def test_it_is_not_even_printed_where_logging_prints_no_errors(
    handler: Handler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler.does = fail
    Log(NAME).warning("node n1 is down")
    assert not capsys.readouterr().err


def test_what_is_logged_while_a_filter_looks_at_a_line_is_left_out_since_it_would_have_no_end(handler: Handler) -> None:
    log = Log(NAME)
    handler.does = lambda record: log.warning("and once more")
    log.warning("the first")
    handler.does = lambda record: None
    log.warning("the next")
    assert handler.messages == ["test_logs.py WARNING the first", "test_logs.py WARNING the next"]
