"""Writes that either happen whole or leave what was there, and say plainly why they could not."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rlvr_zoo.errors import StorageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_ELSEWHERE = "choose another place with --output"
_GO_ON = "then go on (a run with --resume, an evaluation by the same command)"
_FREE = f"free space there, {_GO_ON}, or {_ELSEWHERE}"
_WAY_OUT = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EFBIG: f"raise the limit on file sizes (`ulimit -f`), {_GO_ON}",
    errno.EMFILE: f"raise the limit on open files (`ulimit -n`), {_GO_ON}",
}


@contextmanager
def storage(path: Path, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turns any OSError of the block into a one-line StorageError (its `errno` is kept);
    `elsewhere` says how to choose another place."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        way_out = _WAY_OUT.get(error.errno or 0, _ELSEWHERE).replace(_ELSEWHERE, elsewhere)
        refusal = StorageError(f"{path}: {error.strerror or error}; {way_out}")
        refusal.errno = error.errno
        raise refusal from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces the file's content: after a crash at any moment it is the old or the new, whole.

    Raises StorageError where the disk refuses; then the old content still stands.
    """
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the path's place when the block ends, and never if it fails.

    Raises StorageError where the disk refuses, also where the block made another exception of
    that: `torch.save` turns it into a RuntimeError about positions.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(path):
        raw = _Raw(temporary, "wb")
        try:
            with io.BufferedWriter(raw) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if raw.refusal is not None:
                raise raw.refusal from error
            raise
        sync_folder(path.parent)


class _Raw(io.FileIO):
    """Remembers the write that the disk refused."""

    refusal: OSError | None = None

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.refusal = error
            raise


def sync_folder(path: Path) -> None:
    """Makes the folder's entries (new, renamed or removed names) outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, data: bytes) -> None:
    """Adds bytes at the file's end in one write; where the disk refuses, none of them stay.

    Raises StorageError.
    """
    with storage(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(descriptor, left) :]
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


class Lock:
    """An exclusive lock on a file, which ends with the process that holds it, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(descriptor)

    @classmethod
    def acquire(cls, path: Path) -> Lock | None:
        """The lock, or None where another holds it.  Raises StorageError."""
        with storage(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            return cls(descriptor)

    def release(self) -> None:
        """Gives it up; a second call does nothing."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


_held: set[int] = set()


def _drop_in_child() -> None:
    # A forked child (a verifier's worker) shares the lock; were it to outlive us, it would hold it.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)
