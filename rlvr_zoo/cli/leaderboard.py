"""`rlvr-zoo leaderboard`: from records to pages."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer

from rlvr_zoo.errors import ConfigError, RunFolderError
from rlvr_zoo.leaderboard.board import Board, LeftOut
from rlvr_zoo.leaderboard.build import build
from rlvr_zoo.leaderboard.cards import card_of
from rlvr_zoo.leaderboard.findings import finding
from rlvr_zoo.leaderboard.records import Records, read_records
from rlvr_zoo.leaderboard.write import PAGE, write
from rlvr_zoo.track.comparison import PLAN, Comparison


def leaderboard_command(sources: Sequence[str], out: Path, primary: str | None, digest: str) -> int:
    """Exit code of `rlvr-zoo leaderboard`."""
    with tempfile.TemporaryDirectory(prefix="rlvr-zoo-board-") as scratch:
        folders, left_out = _folders(sources, Path(scratch), digest)
        board = _board(read_records(folders, digest), left_out, folders, sources, primary)
    write(board, out)
    for suite in board.suites:
        typer.echo(finding(board, suite).headline)
    if board.left_out:
        typer.echo(f"left out: {len(board.left_out)}, see {out / 'README.md'}")
    typer.echo(f"wrote {out / PAGE}")
    return 0


def _folders(
    sources: Sequence[str], scratch: Path, digest: str
) -> tuple[list[Path], list[LeftOut]]:
    """The folders to read; runs of trackers are brought into `scratch` first."""
    folders: list[Path] = []
    left_out: list[LeftOut] = []
    for number, source in enumerate(sources):
        if "://" in source or source.startswith("sqlite:"):
            from rlvr_zoo.track.mlflow import fetch

            folder = scratch / str(number)
            fetched = fetch(source, folder, digest=digest)
            left_out += [LeftOut(where=f"MLflow run {id_}", reason=why)
                         for id_, why in fetched.left_out]  # fmt: skip
        else:
            folder = Path(source)
            if not folder.is_dir():
                raise RunFolderError(f"--from {source}: no such folder, and no tracker's URI")
        folders.append(folder)
    return folders, left_out


def _board(
    records: Records,
    left_out: Sequence[LeftOut],
    folders: Sequence[Path],
    sources: Sequence[str],
    primary: str | None,
) -> Board:
    if not records.entries:
        reasons = "; ".join(f"{each.where}: {each.reason}" for each in records.left_out[:3])
        raise ConfigError(f"no run to rank in {', '.join(sources)} {reasons}".rstrip())
    plans: list[Comparison] = []
    bad_plans: list[LeftOut] = []
    for path in sorted({path for folder in folders for path in folder.rglob(PLAN)}):
        try:
            plans.append(Comparison.read(path.parent))
        except RunFolderError as error:
            reason = str(error).removeprefix(f"{path}: ")
            bad_plans.append(LeftOut(where=f"{path.parent.name}/{PLAN}", reason=reason))
    return build(
        records.entries,
        [*records.left_out, *left_out, *bad_plans],
        primary=primary,
        plans=plans,
        cards=card_of,
    )
