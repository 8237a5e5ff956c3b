"""`rlvr-zoo track`."""

from __future__ import annotations

from pathlib import Path

import typer

from rlvr_zoo.errors import RlvrZooError
from rlvr_zoo.track.comparison import PLAN
from rlvr_zoo.track.mlflow import sync, sync_comparison


def sync_command(folder: Path) -> int:
    """The exit code: 1 where runs of a comparison could not be sent."""
    if (folder / PLAN).is_file():
        return _sync_comparison(folder)
    done = sync(folder)
    typer.echo(
        f"{done.tracking_uri} has run {done.run_id} ({done.status}):"
        f" {done.num_metrics} metrics and {len(done.artifacts)} files sent now"
    )
    return 0


def send_comparison(folder: Path) -> None:
    """Sends what is left of a comparison at its end; whatever goes wrong costs a line."""
    try:
        sync_comparison(folder)
    except RlvrZooError as error:
        typer.echo(f"warning: {error}", err=True)


def _sync_comparison(folder: Path) -> int:
    done = sync_comparison(folder)
    missing = f", {done.num_missing} planned runs are missing" if done.num_missing else ""
    typer.echo(
        f"{done.tracking_uri} has comparison {done.run_id} ({done.status}{missing}):"
        f" {len(done.runs)} runs looked at,"
        f" {sum(each.num_metrics for each in done.runs)} metrics and"
        f" {sum(len(each.artifacts) for each in done.runs)} files sent now"
    )
    for path, reason in done.not_sent:
        typer.echo(f"not sent: {path}: {reason}".replace(f"{path}: {path}", str(path)), err=True)
    return int(bool(done.not_sent))
