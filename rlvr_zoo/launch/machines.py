"""The launchers of several machines: they agree on the ranks, and hear of each other's trouble.

The first machine listens at the address that all are given; the others connect to it and stay
connected.  One JSON object a line.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlvr_zoo.errors import RankError
from rlvr_zoo.launch.verdict import Verdict, machine_lost

START_S = 600.0
"""Machines have this long to come together: a scheduler starts them one by one."""
_RETRY_S = 0.5
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A machine without power is noticed after 35 s."""
_MAX_LINE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Which of how many machines this one is, and where the first one listens."""

    number: int
    mine: int
    host: str
    port: int


class Peer:
    """The launcher at the other end of a connection."""

    def __init__(self, connection: socket.socket, machine: int) -> None:
        self.machine, self.is_done = machine, False
        self._socket, self._buffer = connection, b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict[str, Any]) -> None:
        """Says nothing where the other end is gone: whoever listens to it hears of that."""
        try:
            self._socket.settimeout(_RETRY_S)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def receive(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        """Whole lines that have come.  Raises OSError where the other end is gone."""
        self._socket.settimeout(timeout_s)
        try:
            chunk = self._socket.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            return
        if not chunk:
            raise ConnectionResetError("its launcher ended")
        self._buffer += chunk
        if len(self._buffer) > _MAX_LINE:
            raise ConnectionError("it does not speak as a launcher does")
        *lines, self._buffer = self._buffer.split(b"\n")
        yield from (json.loads(line) for line in lines)

    def ask(self, message: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """Sends a line, and waits for one.  Raises OSError, ValueError."""
        if message is not None:
            self.send(message)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for answer in self.receive(_RETRY_S):
                return answer
        raise TimeoutError(f"no answer within {timeout_s:.0f} s")

    def close(self) -> None:
        self._socket.close()


class Link:
    """The launchers that this one hears of; those that are not the first hear of all through it."""

    def __init__(self, peers: list[Peer]) -> None:
        self._peers = peers

    def tell(self, verdict: Verdict | None, done: bool) -> None:
        """This machine's trouble, or that it has come to its end."""
        for peer in self._peers:
            peer.send({"verdict": verdict and asdict(verdict), "done": done})
            if done:
                peer.close()

    def heard(self) -> list[Verdict]:
        """The trouble of other machines, since the last call."""
        found = []
        for peer in [peer for peer in self._peers if not peer.is_done]:
            for verdict in self._from(peer):
                found.append(verdict)
                for other in self._peers:
                    if other is not peer:
                        other.send({"verdict": asdict(verdict), "done": False})
        return found

    def _from(self, peer: Peer) -> list[Verdict]:
        found = []
        try:
            for message in peer.receive(0):
                peer.is_done |= message["done"]
                if message["verdict"]:
                    found.append(_elsewhere(Verdict(**message["verdict"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not peer.is_done:
                found.append(machine_lost(peer.machine, str(error)))
            peer.is_done = True
        return found


def _elsewhere(verdict: Verdict) -> Verdict:
    """A traceback is shown on the machine that it is of."""
    lines = verdict.text.splitlines()
    return verdict if len(lines) < 2 else replace(verdict, text=f"{lines[0]}: {lines[-1]}")


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What the machines agreed on."""

    link: Link
    first_rank: int
    world_size: int
    port: int
    """Where the first rank listens, on the first machine."""


def meet(machines: Machines, num_processes: int, port: int, start_s: float = START_S) -> Agreed:
    """Waits until all machines are there.  Raises RankError where they do not fit, or are late."""
    if machines.mine == 0:
        return _gather(machines, num_processes, port, start_s)
    return _join(machines, num_processes, start_s)


def _gather(machines: Machines, num_processes: int, port: int, start_s: float) -> Agreed:
    here = f"--main-address {machines.host}:{machines.port}"
    try:
        server = socket.create_server(("", machines.port), backlog=machines.number)
    except OSError as error:
        raise RankError(f"{here}: cannot listen ({error.strerror}); take another port") from error
    peers: dict[int, Peer] = {}
    counts = {0: num_processes}
    deadline = time.monotonic() + start_s
    with server:
        while len(counts) < machines.number:
            missing = sorted(set(range(machines.number)) - set(counts))
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                peer = Peer(server.accept()[0], -1)
                hello = peer.ask(None, 5.0)
                peer.machine, count = int(hello["machine"]), int(hello["num_processes"])
            except TimeoutError as error:
                if time.monotonic() < deadline:
                    continue
                raise RankError(
                    f"machine {', '.join(map(str, missing))} did not come within {start_s:.0f} s;"
                    f" start it with the same command and its own --machine-rank, and see that it"
                    f" can reach {machines.host}:{machines.port}"
                ) from error
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a port scan, or a launcher that gave up
            if refusal := _refusal(machines, hello, missing):
                peer.send({"refusal": refusal})
                for each in peers.values():
                    each.send({"refusal": refusal})
                raise RankError(refusal)
            peers[peer.machine], counts[peer.machine] = peer, count
    world_size = sum(counts.values())
    for machine, peer in peers.items():
        first = sum(counts[before] for before in range(machine))
        peer.send({"first_rank": first, "world_size": world_size, "port": port})
    link = Link(list(peers.values()))
    return Agreed(link=link, first_rank=0, world_size=world_size, port=port)


def _refusal(machines: Machines, hello: dict[str, Any], missing: list[int]) -> str:
    machine, number = hello["machine"], hello.get("machines")
    if number != machines.number:
        return (
            f"machine 0 was started with --machines {machines.number}, and machine {machine} with"
            f" --machines {number}; give all the same"
        )
    if machine not in missing:
        return f"two machines were started with --machine-rank {machine}; number them from 0"
    return ""


def _join(machines: Machines, num_processes: int, start_s: float) -> Agreed:
    where = f"{machines.host}:{machines.port}"
    deadline = time.monotonic() + start_s
    while True:
        try:
            connection = socket.create_connection((machines.host, machines.port), timeout=10)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise RankError(
                    f"machine 0 does not answer at {where} ({error.strerror or error}); start it"
                    " with --machine-rank 0, and see that --main-address is its own"
                ) from error
            time.sleep(_RETRY_S)
    peer = Peer(connection, 0)
    hello = {
        "machine": machines.mine, "machines": machines.number, "num_processes": num_processes,
    }  # fmt: skip
    try:
        answer = peer.ask(hello, start_s)
    except (OSError, ValueError) as error:
        raise RankError(f"machine 0 at {where} does not answer ({error})") from error
    if "refusal" in answer:
        raise RankError(str(answer["refusal"]))
    return Agreed(link=Link([peer]), **answer)
