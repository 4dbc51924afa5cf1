import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from msm_fast import (
    ApplicationStopped,
    ConfigurationError,
    ConflictError,
    CorruptRecord,
    InvalidSessionId,
    LockTimeout,
    MsmError,
    NodeTimeout,
    NodeUnavailable,
    SerializationError,
    SessionManager,
    SessionTooLarge,
    SessionUnavailable,
    UnknownFormat,
    WrongEventLoop,
    errors,
)

ERRORS: list[MsmError] = [
    ApplicationStopped("stopped"),
    ConfigurationError("replicas", 99, "0 to 8 backup copies"),
    ConflictError("another was first", session="d1"),
    CorruptRecord("no magic", 5),
    InvalidSessionId("no id"),
    LockTimeout("others have it", session="d1"),
    NodeTimeout("n1", "timeout", "n1 did not answer"),
    NodeUnavailable("n1", "refused", "n1 refused"),
    SerializationError("no codec", session="d1", attribute="cart", type_name="socket"),
    SessionTooLarge("2 MB", size=2 << 20, limit=1 << 20, session="d1"),
    SessionUnavailable("all down", session="d1", nodes=("n1", "n2")),
    UnknownFormat("format 9", 4),
    WrongEventLoop("two loops"),
]


def test_every_error_is_tried_here() -> None:
    assert {type(error).__name__ for error in ERRORS} == set(errors.__all__) - {"MsmError", "harmless"}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("carry", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_a_copy_of_an_error_says_what_the_error_says(carry: Callable[[MsmError], MsmError], error: MsmError) -> None:
    carried = carry(error)
    assert (type(carried), str(carried), carried.args) == (type(error), str(error), error.args)
    assert vars(carried) == vars(error)


def test_an_error_in_a_worker_process_reaches_the_process_that_waits_for_it() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        failed = pool.submit(SessionManager, replicas=99)
        with pytest.raises(ConfigurationError, match="replicas=99 is not accepted"):
            failed.result()
        assert pool.submit(len, "the pool goes on").result() == 16
