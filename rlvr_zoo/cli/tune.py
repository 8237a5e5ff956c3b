"""`rlvr-zoo tune`: the same search for every algorithm."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlvr_zoo.cli.compare import Ways, base_of, run_cells
from rlvr_zoo.cli.run import Flags, interruptible
from rlvr_zoo.cli.screen import percent
from rlvr_zoo.compare.comparison import parse_entrants, settings_text
from rlvr_zoo.compare.tuning import Tuning, search_of
from rlvr_zoo.errors import ConfigError


def tune_command(
    algos: str, over: Sequence[str], trials: int, seeds: int, flags: Flags, ways: Ways
) -> int:
    """Exit code of `rlvr-zoo tune`."""
    if min(trials, seeds) < 1:
        raise ConfigError("--trials, --seeds: set 1 or more")
    entrants = parse_entrants(algos)
    if controls := [entrant.name for entrant in entrants if entrant.settings]:
        raise ConfigError(f"--algos {controls[0]}: a control is not tuned; it has its algorithm's")
    names = [entrant.algo for entrant in entrants]
    search = search_of(base_of(flags), names[0], over, seeds)
    out = ways.output or Path("tunings") / search.protocol
    tuning = Tuning(search, names, out)
    code = interruptible(
        lambda: tuning.run(trials, lambda cells: run_cells(out, cells, ways)),
        lambda: "; the same command goes on",
    )
    if code:
        return code
    _show(tuning)  # also where a trial failed, which `save` refuses
    path = tuning.save()
    print(
        f"next     rlvr-zoo compare --algos {shlex.quote(algos)} --tuned {shlex.quote(str(path))}"
    )
    return 0


def _show(tuning: Tuning) -> None:
    table = Table()
    for column in ("algorithm", "settings", "validation accuracy", ""):
        table.add_column(column, justify="right" if column.startswith("val") else "left")
    best = tuning.best()
    for algo, trials in tuning.scores().items():
        for settings, score in trials:
            table.add_row(
                escape(algo),
                escape(settings_text(settings)),
                "failed" if score is None else percent(score),
                "best" if settings == best[algo] else "",
            )
    Console(highlight=False).print(table)
