"""`rlvr-zoo run`: resolve, execute, and show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.launch.report import rank
from rlvr_zoo.launch.signals import EXIT_CODES, signal_of, terminable
from rlvr_zoo.models.quiet import quiet_transformers
from rlvr_zoo.resolve import merge, parse_set, read_file, resolve, resolve_again
from rlvr_zoo.track.reader import CONFIG, RunReader

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line said; None is what it left open."""

    algo: str | None
    model: str | None
    protocol: str | None
    seed: int | None
    max_steps: int | None
    settings: tuple[str, ...]
    file: Path | None

    def tree(self) -> dict[str, Any]:
        """As layers of a configuration: `--set`, and over it the flags that have a name."""
        named: dict[str, Any] = {
            "algo": self.algo,
            "protocol": self.protocol,
            "seed": self.seed,
            "model": None if self.model is None else {"name": self.model},
            "train": None if self.max_steps is None else {"max_steps": self.max_steps},
        }
        given = {key: value for key, value in named.items() if value is not None}
        return merge(parse_set(self.settings), given)

    def file_tree(self) -> dict[str, Any]:
        """The config file's layer."""
        return read_file(self.file) if self.file else {}


def run_command(flags: Flags, output: Path | None, resume: bool, dry_run: bool) -> int:
    """Exit code of `rlvr-zoo run`."""
    config = _config(flags, output, resume)
    if dry_run:
        print(yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True), end="")
        return 0
    folder = output or _fresh(config)

    def saved() -> str:
        exists = (folder / CONFIG).is_file()
        return f"; go on with --resume --output {folder}" if exists else ""

    return interruptible(lambda: _execute(config, folder, resume), saved)


def interruptible(work: Callable[[], T], what_is_left: Callable[[], str]) -> T | int:
    """What the work returns; after Ctrl-C or SIGTERM a line, and the exit code for it."""
    try:
        with terminable():
            return work()
    except KeyboardInterrupt as error:  # before the loop could see to it, or for the second time
        if is_main():
            print(f"rlvr-zoo: interrupted{what_is_left()}", file=sys.stderr)
        return EXIT_CODES[signal_of(error)]


def _config(flags: Flags, output: Path | None, resume: bool) -> RunConfig:
    """A resumed run keeps its own configuration, less what the flags lay over it."""
    if not resume:
        return resolve(flags.file_tree(), flags.tree())
    if output is None:
        raise RunFolderError("--resume: which run? name its folder with --output")
    return resolve_again(RunReader(output).config(), flags.file_tree(), flags.tree())


def _fresh(config: RunConfig) -> Path:
    """A folder that is not there yet, named after the run and the time."""
    name = Path(config.model.name).name
    algo = config.algo.replace(":", ".")
    return fresh_folder(Path("runs") / f"{config.protocol}-{algo}-{name}-seed{config.seed}")


def fresh_folder(stem: Path) -> Path:
    """The stem with the time behind it, and a number where that is taken."""
    base = stem.with_name(f"{stem.name}-{datetime.now():%Y%m%d-%H%M%S}")
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path


def _execute(config: RunConfig, output: Path, resume: bool) -> int:
    from rlvr_zoo.cli.screen import Screen

    with Screen(main=is_main()) as screen:
        load_quietly(screen.say)
        from rlvr_zoo.train.setup import execute

        record = execute(config, output, resume, screen)
    screen.summary(record, output)
    return EXIT_CODES[record.error] if record.status == "interrupted" else 0


def is_main() -> bool:
    """False on the processes of a launch that say nothing."""
    return rank() == 0


def load_quietly(say: Callable[[str], None]) -> None:
    """Imports what takes seconds, with a word on it, and silences what it would say itself."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    say("[dim]loading torch and transformers ...[/dim]")
    quiet_transformers()
