"""`rlvr-zoo eval`: benchmark suites on a model."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlvr_zoo.cli.run import fresh_folder, interruptible, is_main, load_quietly
from rlvr_zoo.cli.screen import Screen, percent
from rlvr_zoo.config import EvalConfig
from rlvr_zoo.resolve import dotted, merge, parse_set, resolve_eval
from rlvr_zoo.track.record import EvaluationRecord

if TYPE_CHECKING:
    from rlvr_zoo.evaluate.evaluation import Results

_LABELS = {
    "truncated": "cut at the limit",
    "no_answer": "no answer",
    "verify_failed": "verifier failed",
    "tokens": "mean tokens",
}


def eval_command(
    model: str,
    flags: Mapping[str, Any],
    settings: Sequence[str],
    output: Path | None,
    as_json: bool,
) -> int:
    """Evaluates, and prints a table or JSON; exit code of `rlvr-zoo eval`.

    `flags` are those that have a name, by dotted key; None is what the command line left open.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    config = resolve_eval(model, merge(parse_set(settings), dotted(given)))
    name = f"{Path(config.model.name).name}-{'-'.join(config.suites.names)}"
    folder = output or fresh_folder(Path("evals") / name)
    again = f"; the same command with --output {shlex.quote(str(folder))} goes on from there"

    def work() -> int:
        results = _evaluate(config, folder)
        if is_main():
            _show(results, folder, as_json)
        return 0

    return interruptible(work, lambda: again)


def _evaluate(config: EvalConfig, output: Path) -> Results:
    with Screen(main=is_main()) as screen:
        load_quietly(screen.say)
        from rlvr_zoo.evaluate.evaluation import execute
        from rlvr_zoo.train.backend import Backend
        from rlvr_zoo.train.ranks import refuse_mixed, refuse_too_few_gpus

        refuse_too_few_gpus()
        backend = Backend(config.precision)
        refuse_mixed(lambda mine: backend.unshard([mine]), asdict(config))
        output = backend.broadcast(output)  # a new folder is named after the time
        screen.say(f"[bold]{escape(config.model.name)}[/bold] -> {escape(str(output))}")
        return execute(config, output, backend, screen)


def _show(results: Results, folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results.to_dict(), indent=1))
        return
    out = Console(highlight=False)
    table = Table(title=escape(results.config.model.name))
    table.add_column("suite")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for evaluation in results.evaluations:
        title = f"{evaluation.name}, {evaluation.num_problems} problems"
        for row in _rows(evaluation, results.config.suites.pass_at):
            table.add_row(escape(title), *row)
            title = ""
        table.add_section()
    out.print(table)
    out.print(f"results  {escape(str(folder / 'results.json'))}", soft_wrap=True)
    out.print(f"samples  {escape(str(folder / 'samples'))}", soft_wrap=True)


def _rows(evaluation: EvaluationRecord, pass_at: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    spread = f"{percent(evaluation.low)} to {percent(evaluation.high)}"
    yield f"avg@{evaluation.num_samples}", percent(evaluation.accuracy), spread
    if evaluation.rerun_sd is not None:
        yield "  other seeds, same problems", f"± {percent(1.96 * evaluation.rerun_sd)}", ""
    shown = evaluation.shown(pass_at)
    for name, estimate in evaluation.metrics.items():
        if f"{evaluation.name}/{name}" not in shown:
            continue
        form = "{:.1f}".format if name == "tokens" else percent
        spread = f"{form(estimate.low)} to {form(estimate.high)}"
        yield _LABELS.get(name, name.replace("_at_", "@")), form(estimate.value), spread
