"""What a person sees while a run goes on, and at its end.  All of it on standard error, but for
the summary."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from rlvr_zoo.config import RunConfig
from rlvr_zoo.evaluate.base import Standing
from rlvr_zoo.track.record import EvaluationRecord, RunRecord


class Screen:
    """The observer of a run on a terminal; on a pipe, lines without a bar."""

    def __init__(self, main: bool = True) -> None:
        """Only the `main` process says anything."""
        self._console = Console(stderr=True, highlight=False, quiet=not main)
        self._out = Console(highlight=False, quiet=not main)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._warmup: TaskID | None = None
        self._training: TaskID | None = None
        self._suites: dict[str, TaskID] = {}
        self._micro_batch_tokens = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line, above any bar."""
        self._console.print(text, soft_wrap=True)

    def warn(self, message: str) -> None:
        self.say(f"[yellow]warning:[/yellow] {escape(message)}")

    def progress(self, done: int, total: int, message: str) -> None:
        if self._warmup is None:
            self.say("making the tiny model (once; it is cached) ...")
            self._warmup = self._progress.add_task("warm-up", note="")
        self._progress.update(self._warmup, completed=done, total=total, note=escape(message))

    def ready(self, config: RunConfig, folder: Path, resumed_at: int, notes: Sequence[str]) -> None:
        if self._warmup is not None:
            self._progress.update(self._warmup, visible=False)
        self.say(
            f"[bold]{escape(config.algo)}[/bold] on [bold]{escape(config.model.name)}[/bold] under"
            f" protocol [bold]{escape(config.protocol)}[/bold], seed {config.seed}"
            f" -> {escape(str(folder))}"
        )
        for note in notes:
            self.say(escape(note))
        if resumed_at:
            self.say(f"resumed after step {resumed_at}")
        self._micro_batch_tokens = config.train.micro_batch_tokens
        self._training = self._progress.add_task(
            "training", total=config.train.max_steps, completed=resumed_at, note=""
        )

    def step(self, step: int, metrics: dict[str, float]) -> None:
        if self._training is not None:
            note = f"reward {metrics['reward/mean']:.2f}"
            self._progress.update(self._training, completed=step, note=note)
        if metrics.get("train/not_finite"):
            self.warn(f"step {step}: the loss or the gradient is not finite; the step is left out")
        elif metrics.get("train/skipped") == 1:
            self.warn(f"step {step}: no rollout gives a signal, so no step was taken")
        tokens = metrics.get("train/micro_batch_tokens", 0.0)  # none of an untrained control
        if 0 < tokens < self._micro_batch_tokens:
            self._micro_batch_tokens = tokens
            self.warn(
                f"step {step}: out of memory; micro-batches have {tokens:.0f} tokens at most from"
                " here on, gradients are the same (to begin so: --set"
                f" train.micro_batch_tokens={tokens:.0f})"
            )

    def evaluating(self, standing: Standing) -> None:
        name = standing.name
        if name not in self._suites:
            self._suites[name] = self._progress.add_task(
                f"{escape(name)} samples", total=standing.num_samples_wanted, note=""
            )
        self._progress.update(
            self._suites[name],
            completed=standing.num_samples,
            total=standing.num_samples_wanted,
            note=f"{standing.num_problems}/{standing.num_problems_wanted} problems,"
            f" accuracy {percent(standing.accuracy)}",
        )

    def evaluated(self, evaluation: EvaluationRecord) -> None:
        if (bar := self._suites.pop(evaluation.name, None)) is not None:
            self._progress.remove_task(bar)
        when = "" if self._training is None else f"step {evaluation.step:>5}  "
        self.say(
            f"{when}{escape(evaluation.name)} accuracy {percent(evaluation.accuracy)}"
            f"  [dim]95 % interval {percent(evaluation.low)} to {percent(evaluation.high)}[/dim]"
        )

    def summary(self, record: RunRecord, folder: Path) -> None:
        """The table at the end, and what to do next."""
        table = Table(title=f"{record.algorithm} on {record.protocol}, seed {record.seed}")
        table.add_column("")
        table.add_column("value", justify="right")
        table.add_column("95 % interval", justify="right")
        for evaluation in _ends(record):
            when = f"after {evaluation.step} steps" if evaluation.step else "before"
            interval = f"{percent(evaluation.low)} to {percent(evaluation.high)}"
            table.add_row(
                f"{escape(label(evaluation))} {when}", percent(evaluation.accuracy), interval
            )
        for name, value in _costs(record):
            table.add_row(name, value, "")
        self._out.print(table)
        self._out.print(f"record   {escape(str(folder / 'record.json'))}", soft_wrap=True)
        self._out.print(f"next     {escape(_next(record, folder))}", soft_wrap=True)


def _ends(record: RunRecord) -> list[EvaluationRecord]:
    """The first and the last evaluation of every set of problems."""
    names = dict.fromkeys(each.name for each in record.evaluations)
    found = []
    for name in names:
        mine = [each for each in record.evaluations if each.name == name]
        found += mine[:1] if len(mine) == 1 else [mine[0], mine[-1]]
    return found


def label(evaluation: EvaluationRecord) -> str:
    """What was measured, in the field's words: `aime25 avg@32 (30 problems)`."""
    number = evaluation.num_samples
    what = f"avg@{number}" if number > 1 else "accuracy"
    return f"{evaluation.name} {what} ({evaluation.num_problems} problems)"


def _costs(record: RunRecord) -> list[tuple[str, str]]:
    costs = record.costs
    training_s = costs.rollout_s + costs.verify_s + costs.update_s
    return [
        ("generated tokens", f"{costs.generated_tokens:,}"),
        ("tokens/s, sampling", f"{costs.generated_tokens / max(costs.rollout_s, 1e-9):,.0f}"),
        ("steps/s, training", f"{record.steps_done / max(training_s, 1e-9):.2f}"),
        ("seconds in all", f"{costs.total_s:.1f}"),
        ("parameters in memory", f"{sum(costs.parameters.values()):,}"),
    ]


def _next(record: RunRecord, folder: Path) -> str:
    program = "rlvr-zoo" if shutil.which("rlvr-zoo") else shlex.quote(sys.argv[0])
    if record.status == "interrupted":  # stopped and saved
        return f"{program} run --resume --output {shlex.quote(str(folder))}"
    return f"{program} plot {shlex.quote(str(folder))}"


def percent(share: float) -> str:
    """A share as per cent with one digit."""
    return f"{100 * share:.1f} %"
