"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts faster, and keeps its [brackets]
    help="Reinforcement learning with verifiable rewards, compared honestly.",
)
track = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="What was sent to MLflow, and what is still to be sent.",
)
app.add_typer(track, name="track")
problems = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Sets of problems to train on.",
)
app.add_typer(problems, name="problems")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NumProcesses = Annotated[
    int | None, typer.Option(min=1, help="Start that many ranks on this machine, one a GPU.")
]
NumMachines = Annotated[int | None, typer.Option("--machines", min=1, help="Machines in all.")]
MachineRank = Annotated[int | None, typer.Option(help="This machine's number, from 0.")]
MainAddress = Annotated[
    str | None, typer.Option(help="HOST:PORT of machine 0, the same on every machine.")
]


@app.command()
def run(
    algo: Annotated[str | None, typer.Option(help="Algorithm, ablation, or module:Class.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Preset, folder, or hub name.  [default: tiny]")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="What is held equal.  [default: the model's, or micro]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling, order and noise.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Rollout batches to train on.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder.  [default: a new one under runs/]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key.path=value; may be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")
    ] = False,
    num_processes: NumProcesses = None,
    machines: NumMachines = None,
    machine_rank: MachineRank = None,
    main_address: MainAddress = None,
) -> None:
    """Train a model by one algorithm under one protocol, evaluate it, and record everything."""
    from rlvr_zoo.cli.launching import LaunchFlags, launched
    from rlvr_zoo.cli.run import Flags, interruptible, run_command

    launch = LaunchFlags(
        num_processes=num_processes,
        machines=machines,
        machine_rank=machine_rank,
        main_address=main_address,
    )
    if not dry_run and (code := interruptible(lambda: launched(launch), str)) is not None:
        raise typer.Exit(code)

    flags = Flags(
        algo=algo,
        model=model,
        protocol=protocol,
        seed=seed,
        max_steps=max_steps,
        settings=tuple(set_ or ()),
        file=config,
    )
    raise typer.Exit(run_command(flags, output, resume, dry_run))


@app.command()
def plan(
    gpus: Annotated[
        str, typer.Option(help="NAMExCOUNT, for example h100x8; h100x8x2: two machines.")
    ],
    algo: Annotated[str | None, typer.Option(help="Algorithm, ablation, or module:Class.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Preset, folder, or hub name.  [default: tiny]")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="What is held equal.  [default: the model's, or micro]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key.path=value; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each algorithm that are compared.")] = 5,
    utilisation: Annotated[
        float, typer.Option(help="Share of the GPUs' peak rate that an update reaches.")
    ] = 0.4,
    as_json: Json = False,
) -> None:
    """Say what a run takes: memory, hours, what it can show; exit code 1 where it cannot fit."""
    from rlvr_zoo.cli.plan import plan_command
    from rlvr_zoo.cli.run import Flags

    flags = Flags(
        algo=algo,
        model=model,
        protocol=protocol,
        seed=None,
        max_steps=None,
        settings=tuple(set_ or ()),
        file=config,
    )
    raise typer.Exit(plan_command(flags, gpus, seeds, utilisation, as_json))


@app.command("eval")
def eval_(
    model: Annotated[str, typer.Option(help="Preset, folder (also a checkpoint's), or hub name.")],
    suite: Annotated[str, typer.Option(help="Suites or groups, for example aime25,math500.")],
    samples: Annotated[
        int | None, typer.Option(help="Samples of each problem.  [default: the suite's]")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Rollout engine.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of JSONL files in place of the hub.  [default: RLVR_ZOO_DATA]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first problems of each.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of sampling.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy.  [default: the suite's]")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off.  [default: the suite's]")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="A response is cut here.  [default: the suite's]")
    ] = None,
    pass_at: Annotated[
        str | None, typer.Option(help="Which pass@k to show, for example 1,8,32.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Output folder, also to go on in.  [default: a new one under evals/]"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key.path=value; may be repeated.")
    ] = None,
    as_json: Json = False,
    num_processes: NumProcesses = None,
) -> None:
    """Measure a model on benchmark suites: avg@k, pass@k, maj@k, with intervals."""
    from rlvr_zoo.cli.evaluate import eval_command
    from rlvr_zoo.cli.launching import LaunchFlags, launched
    from rlvr_zoo.cli.run import interruptible

    launch = LaunchFlags(
        num_processes=num_processes, machines=None, machine_rank=None, main_address=None
    )
    if (code := interruptible(lambda: launched(launch), str)) is not None:
        raise typer.Exit(code)

    flags = {
        "suites.names": [name.strip() for name in suite.split(",") if name.strip()],
        "suites.num_samples": samples,
        "suites.data": None if data is None else str(data),
        "suites.limit": limit,
        "suites.temperature": temperature,
        "suites.top_p": top_p,
        "suites.max_completion_tokens": max_tokens,
        "suites.pass_at": None if pass_at is None else pass_at.split(","),
        "rollout.engine": engine,
        "precision": precision,
        "seed": seed,
    }
    raise typer.Exit(eval_command(model, flags, set_ or (), output, as_json))


@app.command()
def check(
    algo: Annotated[
        str | None, typer.Argument(help="Algorithm, ablation, or module:Class.")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Golden cases: a JSON file, or a folder of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove an algorithm's gradients: the conformance rules, or golden cases with --golden."""
    from rlvr_zoo.cli.check import check_command

    raise typer.Exit(check_command(algo, golden, as_json))


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="algorithms, models, protocols, suites or launch.")],
    as_json: Json = False,
    path: Annotated[
        str | None, typer.Option(help="Print where the preset of that name lies, and no more.")
    ] = None,
) -> None:
    """Show what there is to choose from."""
    from rlvr_zoo.cli.listing import list_command, path_command

    if path is not None:
        path_command(kind, path)
    else:
        list_command(kind, as_json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's output folder.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    step: Annotated[int | None, typer.Option(help="Which checkpoint.  [default: newest]")] = None,
    dtype: Annotated[str, typer.Option(help="fp32, or bf16: half the size.")] = "fp32",
) -> None:
    """Write the policy of a run's checkpoint as a plain Hugging Face folder."""
    from rlvr_zoo.cli.export import export_command

    export_command(run, folder, step, dtype)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The algorithm's name: letters, digits, _.")],
    out: Annotated[Path, typer.Option(help="Folder in which the package's is made.")] = Path("."),
) -> None:
    """Write a small package with an algorithm that works, to be made into yours."""
    from rlvr_zoo.cli.new import new_command

    new_command(name, out)


@app.command()
def verify(
    cases: Annotated[
        Path, typer.Option(help="JSONL file: prediction, gold, expected, and style, tier ...")
    ],
    as_json: Json = False,
) -> None:
    """Measure the math verifier on cases with known verdicts."""
    from rlvr_zoo.cli.verify import verify_command

    verify_command(cases, as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Preset, folder (also a checkpoint's), or hub name.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; whoever reaches it controls the server.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    dtype: Annotated[
        str | None, typer.Option(help="[default: bfloat16, or float32 where there is no GPU]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and stop.")] = False,
) -> None:
    """Start a vLLM server for rollout.vllm.servers; unknown options go to `vllm serve`."""
    from rlvr_zoo.cli.serve import serve_command

    serve_command(model, host, port, dtype, context.args, dry_run)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, and what will work on it."""
    from rlvr_zoo.cli.doctor import doctor_command

    raise typer.Exit(doctor_command(as_json))


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of runs of one protocol.")],
    out: Annotated[Path, typer.Option(help="The picture, .png or .svg.")] = Path("curves.png"),
) -> None:
    """Draw held-out accuracy against steps."""
    from rlvr_zoo.leaderboard.curves import plot as draw

    draw(runs, out)
    typer.echo(f"wrote {out}")


@track.command("sync")
def sync(
    folder: Annotated[Path, typer.Argument(help="A run's or a comparison's output folder.")],
) -> None:
    """Send to MLflow what it has not got of a run, or of a comparison and its runs."""
    from rlvr_zoo.cli.tracking import sync_command

    raise typer.Exit(sync_command(folder))


@problems.command("check")
def problems_check(
    train: Annotated[str, typer.Argument(help="JSONL file, folder of them, or hub OWNER/NAME.")],
    against: Annotated[str, typer.Option(help="Suites, for example aime25,math500.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of JSONL files to read suites from, not the hub.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Report what a training set shares with suites; exit code 1 where a problem leaked."""
    from rlvr_zoo.cli.problems import check_command

    raise typer.Exit(check_command(train, against, str(data or ""), as_json))
