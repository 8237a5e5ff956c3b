"""One vLLM server over HTTP: every failure, whatever the server says, is one line.

Servers are asked directly: `http_proxy` and its like are not looked at, as a proxy would see every
prompt, and would cut off requests that take minutes.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from rlvr_zoo.errors import ConfigError, EngineError

MAX_TIMEOUT_S = 1e6
"""Eleven days; a socket's own limit is not far above."""


class Reply(BaseModel):
    """A JSON object; subclasses say which keys are looked at."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


R = TypeVar("R", bound=Reply)


class Refusal(EngineError):
    """A server that answers by an HTTP status other than success."""

    status: int


class Unusable(EngineError):
    """A server whose answer is not what vLLM would say."""


class Hangup:
    """Ends requests from another thread: those under way, and those that come."""

    def __init__(self) -> None:
        self._lock, self._sockets, self._is_over = Lock(), set[socket.socket](), False

    def hang_up(self) -> None:
        with self._lock:
            self._is_over = True
            for connected in self._sockets:
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def holding(self, connected: socket.socket) -> Iterator[None]:
        """Raises ConnectionAbortedError where it is over already."""
        with self._lock:
            if self._is_over:
                raise ConnectionAbortedError("hung up")
            self._sockets.add(connected)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connected)


class Server:
    """One vLLM server in development mode, which has the routes for new weights."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """A request that takes longer than `timeout_s` in all fails; 11 days at most.

        Raises ConfigError for what is no URL, or has a password in it.
        """
        parts = _parts(url)
        self.url, self._host, self._port = url.rstrip("/"), parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self.timeout_s = min(timeout_s, MAX_TIMEOUT_S)

    def get(self, path: str, reply: type[R] = Reply, hangup: Hangup | None = None) -> R:  # type: ignore[assignment]
        """Raises EngineError where the server does not answer, refuses, or says something else."""
        return self._asked("GET", path, None, reply, hangup)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        reply: type[R] = Reply,  # type: ignore[assignment]
        hangup: Hangup | None = None,
    ) -> R:
        """Raises EngineError where the server does not answer, refuses, or says something else."""
        return self._asked("POST", path, json.dumps(body or {}).encode(), reply, hangup)

    def _asked(
        self, method: str, path: str, body: bytes | None, reply: type[R], hangup: Hangup | None
    ) -> R:
        try:
            status, text = self._exchange(method, path, body, hangup or Hangup())
        except (OSError, IncompleteRead) as error:
            raise self.down(error) from error
        except (HTTPException, ValueError) as error:
            raise self.unusable(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            refusal = Refusal(
                f"vLLM server {self.url} refuses /{path}: {status} {one_line(text)}; start it with"
                " `rlvr-zoo serve`, on this model"
            )
            refusal.status = status
            raise refusal
        try:
            return reply.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            why = f"/{path}: {where + ': ' if where else ''}{first['msg']}; it said {text[:200]!r}"
            raise self.unusable(why) from error

    def _exchange(
        self, method: str, path: str, body: bytes | None, hangup: Hangup
    ) -> tuple[int, bytes]:
        end = time.monotonic() + self.timeout_s
        connection = self._connection(self._host, self._port, timeout=self.timeout_s)
        connection.connect()
        connected = connection.sock
        try:
            with hangup.holding(connected):
                connection.sock = _Bounded(connected, end)
                connection.request(method, f"{self._path}/{path}", body, _headers())
                answer = connection.getresponse()
                try:
                    return answer.status, answer.read()
                except (OSError, HTTPException) as error:
                    if answer.status < 400:
                        raise
                    return answer.status, getattr(error, "partial", b"")  # refused all the same
        finally:
            connected.close()

    def down(self, error: Exception) -> EngineError:
        reason = one_line(f"{type(error).__name__}: {error}")
        return EngineError(
            f"vLLM server {self.url} does not answer ({reason}); start it again with"
            " `rlvr-zoo serve`, then go on by the same command (a run: with --resume)"
        )

    def unusable(self, why: str) -> Unusable:
        return Unusable(
            f"{self.url} is no vLLM server that this can use ({one_line(why)}); start one with"
            " `rlvr-zoo serve`, on this model"
        )


class _Bounded:
    """A socket, as `http.client` uses one, that is through at a point in time, however slowly bytes
    trickle in."""

    def __init__(self, connected: socket.socket, end: float) -> None:
        self._connected, self._end = connected, end

    def in_time(self) -> socket.socket:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connected.settimeout(left)
        return self._connected

    def sendall(self, data: bytes) -> None:
        self.in_time().sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        """Nothing: a reply may still be read; who connected closes."""


class _Incoming(io.RawIOBase):
    def __init__(self, source: _Bounded) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.in_time().recv_into(buffer)


def one_line(text: str | bytes, limit: int = 300) -> str:
    """Text of a stranger's, for an error message: no line breaks or control characters, and cut."""
    if isinstance(text, bytes):
        text = text[: 8 * limit].decode(errors="replace")
    plain = "".join(char if char.isprintable() else " " for char in text[: 8 * limit])
    return " ".join(plain.split())[:limit]


def _headers() -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(
        "VLLM_API_KEY", ""
    ).strip():  # what a vLLM server reads its own key from
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _parts(url: str) -> SplitResult:
    """Raises ConfigError for what is no URL of a server."""
    wrong = f"rollout.vllm.servers: {one_line(url)!r} is no URL; write http://HOST:PORT"
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.port != 0  # a bad port raises
        (parts.hostname or "").encode("idna")
    except ValueError:
        is_good = False
    if "@" in url:  # never printed: it may hold a password, and stands in the run's records
        raise ConfigError(
            "rollout.vllm.servers: a URL has a user or password, which would stand in the run's"
            " records; leave it out (a server's key goes into VLLM_API_KEY)"
        )
    printable = url.isascii() and url.isprintable() and " " not in url
    if not is_good or not printable or parts.scheme not in ("http", "https"):
        raise ConfigError(wrong)
    if parts.query or parts.fragment:
        raise ConfigError(wrong)
    return parts
