"""One server over HTTP: every failure is one line, and comes in time."""

import socket
import threading
import time
from typing import Any

import pytest

from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.rollout.server_http import Hangup, Refusal, Reply, Server, one_line
from tests.rollout.conftest import Handler, Stub, within


class Models(Reply):
    data: list[int]


def failure(stub: Stub, timeout_s: float = 10.0) -> str:
    with pytest.raises(EngineError) as caught:
        Server(stub.url, timeout_s).get("v1/models", Models)
    message = str(caught.value)
    assert message.isprintable() and stub.url in message and len(message) < 700
    return message


@pytest.mark.parametrize(
    "said",
    [b"<html>hello</html>", b'{"data": [1', b"", b"[]", b"null", b'{"error": "x"}', b'{"data": 1}',
     b'{"data": [null]}', b'{"data": ["1"]}', b'{"data": [1.5]}', b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_another_reply_than_vllms(stub: Stub, said: bytes) -> None:
    stub.answers["v1/models"] = lambda *_: said
    message = failure(stub)
    assert f"{stub.url} is no vLLM server that this can use (/v1/models: " in message


def test_a_reply_that_breaks_off(stub: Stub) -> None:
    stub.answers["v1/models"] = lambda handler, _: handler.say(b'{"data"', length=100)
    assert "does not answer (IncompleteRead" in failure(stub)


def test_an_error_that_breaks_off_is_shown_all_the_same(stub: Stub) -> None:
    text = b"too\nmany \x1b[31mcows\x00 \xe2\x80\xae" + b"!" * 1000
    stub.answers["v1/models"] = lambda handler, _: handler.say(text, 503, len(text) + 5)
    message = failure(stub)
    assert "refuses /v1/models: 503 too many [31mcows !!!" in message
    with pytest.raises(Refusal) as caught:
        Server(stub.url, 10.0).get("v1/models")
    assert caught.value.status == 503


def test_what_is_no_http(stub: Stub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            connected, _ = listening.accept()
            connected.recv(4096)
            connected.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connected.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(EngineError, match=r"no vLLM server .*BadStatusLine"):
            Server(url, 10.0).get("v1/models")
        thread.join()


def test_a_reply_that_trickles_is_given_up_in_time(stub: Stub) -> None:
    def trickle(handler: Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    stub.answers["v1/models"] = trickle
    with within(2.0):
        assert "does not answer (TimeoutError" in failure(stub, timeout_s=0.5)


def test_a_reply_that_falls_silent_late_is_given_up_in_time(stub: Stub) -> None:
    def fall_silent(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(1.5)
        handler.say(b" ", length=10)
        stub.ended.wait(10)

    stub.answers["v1/models"] = fall_silent
    with within(3.0):  # and not 1.5 + 2
        assert "does not answer (TimeoutError" in failure(stub, timeout_s=2.0)


def test_absurd_timeouts_are_eleven_days(stub: Stub) -> None:
    for timeout_s in (1e12, float("inf")):
        Server(stub.url, timeout_s).get("v1/models")


def test_another_thread_can_hang_up(stub: Stub) -> None:
    stub.answers["v1/models"] = stub.hang
    hangup = Hangup()
    threading.Timer(0.3, hangup.hang_up).start()
    for _ in range(2):  # what is under way, and what comes
        with within(2.0), pytest.raises(EngineError):
            Server(stub.url, 30.0).get("v1/models", hangup=hangup)


def test_proxies_are_not_asked(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    Server(stub.url, 10.0).get("v1/models")


def test_a_servers_key_is_sent(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answers["v1/models"] = lambda handler, _: {"data": [handler.headers["Authorization"]]}
    monkeypatch.setenv("VLLM_API_KEY", "k1")

    class Keys(Reply):
        data: list[str]

    assert Server(stub.url, 10.0).get("v1/models", Keys).data == ["Bearer k1"]


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "http://", "http:///v1", "ftp://host", "http://host:port", "http://host:99999",
     "http://a..b", "http://ho st", "http://host\n:80", "http://host?x=1", "http://[::1"],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.servers: .* is no URL") as caught:
        Server(url, 10.0)
    assert str(caught.value).isprintable()


def test_a_password_is_refused_and_not_printed() -> None:
    for url in ("http://me:secret@host:8000", "me:secret@host", "http://me:sec/ret@host"):
        with pytest.raises(ConfigError, match="would stand in the run's records") as caught:
            Server(url, 10.0)
        assert "sec" not in str(caught.value)


def test_one_line() -> None:
    assert one_line(b"\x1b]0;a\x07 b\r\n\tc\xff\xe2\x80\xa8d", 9) == "]0;a b c�"
    assert one_line("x" * 1000, 5) == "xxxxx"
