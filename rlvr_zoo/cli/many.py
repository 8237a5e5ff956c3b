"""The commands on many runs, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvr_zoo.cli.app import app

if TYPE_CHECKING:
    from rlvr_zoo.cli.run import Flags

Seeds = Annotated[int, typer.Option(help="Seeds of each, from 0.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at once.  [default: as fit]")]
Only = Annotated[str, typer.Option(help="A part of the runs: algo=NAME,seed=NUMBER.")]
Ranks = Annotated[int, typer.Option("--num-processes", min=1, help="Ranks of each run.")]
Protocol = Annotated[
    str | None, typer.Option(help="What is held equal.  [default: the model's, or micro]")
]
Model = Annotated[
    str | None, typer.Option(help="Preset, folder, or hub name.  [default: the protocol's]")
]
MaxSteps = Annotated[int | None, typer.Option(help="Rollout batches to train on.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="key.path=value for all; may be repeated.")
]
ManyOutput = Annotated[
    Path | None, typer.Option(help="Folder, also to go on in.  [default: under comparisons/]")
]


@app.command()
def compare(
    algos: Annotated[
        str, typer.Option(help="Algorithms and ablations; all; ALGO+CONTROL, see train.control.")
    ],
    protocol: Protocol = None,
    model: Model = None,
    seeds: Seeds = 5,
    max_steps: MaxSteps = None,
    output: ManyOutput = None,
    only: Only = "",
    jobs: Jobs = None,
    num_processes: Ranks = 1,
    tuned: Annotated[Path | None, typer.Option(help="Settings that `rlvr-zoo tune` found.")] = None,
    config: Config = None,
    set_: Set = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print runs, hours and what can be seen, and stop.")
    ] = False,
    gpus: Annotated[
        str, typer.Option(help="For --plan: NAMExCOUNT of each run, for example h100x8.")
    ] = "",
) -> None:
    """Run every algorithm with every seed under one protocol; what is done is not repeated."""
    from rlvr_zoo.cli.compare import Ways, compare_command, comparison_of

    flags = _common(protocol, model, max_steps, config, set_)
    if plan:
        from rlvr_zoo.cli.compare_plan import plan_command

        raise typer.Exit(plan_command(comparison_of(algos, flags, seeds, tuned), output, gpus))
    ways = Ways(output=output, only=only, jobs=jobs, num_processes=num_processes)
    raise typer.Exit(compare_command(algos, flags, seeds, tuned, ways))


@app.command()
def sweep(
    algo: Annotated[str, typer.Option(help="Algorithm, ablation, or module:Class.")],
    over: Annotated[
        list[str], typer.Option(help="KNOB=VALUE,VALUE; repeated, all combinations are run.")
    ],
    protocol: Protocol = None,
    model: Model = None,
    seeds: Seeds = 3,
    max_steps: MaxSteps = None,
    output: ManyOutput = None,
    only: Only = "",
    jobs: Jobs = None,
    num_processes: Ranks = 1,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Run one algorithm over values of its knobs, and see how much they matter."""
    from rlvr_zoo.cli.compare import Ways, sweep_command

    flags = _common(protocol, model, max_steps, config, set_)
    ways = Ways(output=output, only=only, jobs=jobs, num_processes=num_processes)
    raise typer.Exit(sweep_command(algo, over, flags, seeds, ways))


@app.command()
def tune(
    algos: Annotated[str, typer.Option(help="Algorithms, ablations; all.")],
    trials: Annotated[int, typer.Option(help="Settings tried of each, the preset first.")],
    over: Annotated[
        list[str] | None,
        typer.Option(help="KNOB=VALUE,VALUE or KNOB=LOW..HIGH.  [default: the learning rate]"),
    ] = None,
    protocol: Protocol = None,
    model: Model = None,
    seeds: Annotated[int, typer.Option(help="Runs of each trial.")] = 1,
    max_steps: MaxSteps = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder, also to go on in.  [default: under tunings/]")
    ] = None,
    jobs: Jobs = None,
    num_processes: Ranks = 1,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Search every algorithm's settings with one budget, on problems that are not the test."""
    from rlvr_zoo.cli.compare import Ways
    from rlvr_zoo.cli.tune import tune_command

    flags = _common(protocol, model, max_steps, config, set_)
    ways = Ways(output=output, only="", jobs=jobs, num_processes=num_processes)
    raise typer.Exit(tune_command(algos, over or (), trials, seeds, flags, ways))


def _common(
    protocol: str | None,
    model: str | None,
    max_steps: int | None,
    config: Path | None,
    set_: list[str] | None,
) -> Flags:
    """What all runs of a comparison share."""
    from rlvr_zoo.cli.run import Flags

    return Flags(
        algo=None,
        model=model,
        protocol=protocol,
        seed=None,
        max_steps=max_steps,
        settings=tuple(set_ or ()),
        file=config,
    )


@app.command()
def leaderboard(
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="Folder of runs, or a tracker's URI; may be repeated.  [default: .]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("leaderboards"),
    primary: Annotated[
        str | None, typer.Option(help="Suite that orders the rows.  [default: the first]")
    ] = None,
    digest: Annotated[
        str, typer.Option(help="Protocol, by the beginning of its digest.  [default: the only one]")
    ] = "",
) -> None:
    """Write a leaderboard from the records of runs: Markdown, JSON, CSV and one HTML page."""
    from rlvr_zoo.cli.leaderboard import leaderboard_command

    raise typer.Exit(leaderboard_command(from_ or ["."], out, primary, digest))
