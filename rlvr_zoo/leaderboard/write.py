"""A leaderboard's folder: README.md, results.json, results.csv and index.html, written and read."""

from __future__ import annotations

from pathlib import Path

from rlvr_zoo.errors import ConfigError, NotFoundError
from rlvr_zoo.leaderboard.board import Board
from rlvr_zoo.leaderboard.page import page
from rlvr_zoo.leaderboard.readme import readme
from rlvr_zoo.leaderboard.results import from_json, to_csv, to_json
from rlvr_zoo.track.storage import storage, write_atomically

README = "README.md"
RESULTS = "results.json"
TABLE = "results.csv"
PAGE = "index.html"
FINDINGS = "findings.md"
"""Written by hand, and put at the top of README.md."""


def write(board: Board, out: Path) -> None:
    """Writes the board's four files into a folder, which is made where it is missing.

    Equal boards (and an equal findings.md) give equal bytes.  Raises ConfigError for a findings.md
    that is no text, StorageError where the disk refuses.
    """
    with storage(out, "choose another folder with --out"):
        out.mkdir(parents=True, exist_ok=True)
    files = {
        PAGE: page(board).encode("utf-8"),
        TABLE: to_csv(board),
        README: readme(board, _by_hand(out / FINDINGS)).encode("utf-8"),
        RESULTS: to_json(board),
    }
    for name, data in files.items():
        write_atomically(out / name, data)


def read(path: Path) -> Board:
    """The board of a results.json, or of the folder that holds one.

    Raises NotFoundError where there is none, ConfigError for damage and for another schema.
    """
    path = path / RESULTS if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"{path}: no leaderboard to read ({error.strerror}); rlvr-zoo leaderboard writes one"
        ) from error
    return from_json(data, path)


def _by_hand(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}); mend or remove it") from error
