import contextlib
import http.server
import json
import socket
import threading
from types import SimpleNamespace

import pytest

from msm_fast.cli.demo.load import Balancer, RequestFailed, Shopper


@contextlib.contextmanager
def serving(name, *, status=200, cart=None):
    """One small HTTP server that answers everything alike and keeps the cookies it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            worker.cookies.append(self.headers.get("Cookie"))
            body = json.dumps({"cart": cart or {}, "worker": name}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", f"session=of-{name}; Path=/; HttpOnly")
            self.send_header("Server-Timing", "app;dur=12.500")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        # Threads that serve a kept connection end with it; nobody waits for them.
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        worker = SimpleNamespace(name=name, port=server.server_address[1], cookies=[])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield worker
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def dead():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return SimpleNamespace(name="dead", port=port)


@pytest.fixture
def balance():
    with contextlib.ExitStack() as stack:

        def make(*workers):
            balancer = Balancer(workers)
            stack.callback(balancer.close)
            return balancer

        yield make


def test_requests_go_round_the_workers(balance):
    with serving("w1") as w1, serving("w2") as w2:
        balancer = balance(w1, w2)
        names = [balancer.send("GET", "/cart", {}).content["worker"] for _ in range(4)]
        assert sorted(names[:2]) == ["w1", "w2"]
        assert names[:2] == names[2:]


def test_an_answer_carries_cookies_and_the_workers_time(balance):
    with serving("w1") as w1:
        answer = balance(w1).send("GET", "/cart", {"session": "mine"})
        assert w1.cookies == ["session=mine"]
        assert answer.cookies == {"session": "of-w1"}
        assert answer.in_worker_s == 0.0125
        assert answer.n_retried == 0


def test_a_refused_request_is_retried_on_the_other_worker_and_counted(balance, dead):
    with serving("w1") as w1:
        balancer = balance(w1, dead)
        answers = [balancer.send("GET", "/cart", {}) for _ in range(4)]
        assert {answer.content["worker"] for answer in answers} == {"w1"}
        # After the first refusal the dead worker is the last choice for a while.
        assert sum(answer.n_retried for answer in answers) == 1


def test_no_worker_at_all_is_a_failed_request(balance, dead):
    with pytest.raises(RequestFailed, match="no worker answered, dead"):
        balance(dead).send("GET", "/cart", {})


def test_an_error_status_is_a_failed_request_and_not_retried(balance):
    with serving("w1", status=503) as w1:
        with pytest.raises(RequestFailed, match="w1 answered 503"):
            balance(w1).send("GET", "/cart", {})
        assert len(w1.cookies) == 1


def test_a_cart_as_acknowledged_has_no_difference():
    assert Shopper(0, cart={"tea": 2}).difference({"tea": 2}) is None


@pytest.mark.parametrize("cart", [{}, {"tea": 3}, {"tea": 2, "honey": 1}])
def test_any_other_cart_is_a_difference(cart):
    assert Shopper(0, cart={"tea": 2}).difference(cart) is not None


def test_after_an_unanswered_write_the_old_and_the_new_quantity_are_right():
    shopper = Shopper(0, cart={"tea": 2}, unsure={"tea": {5}, "honey": {0, 1}})
    assert shopper.difference({"tea": 2}) is None
    assert shopper.difference({"tea": 5, "honey": 1}) is None
    assert shopper.difference({"tea": 4}) == "tea is 4 and not 2 or 5"
