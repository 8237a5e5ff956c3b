"""Which runs a comparison has, and where they lie.

    OUT/comparison.json          what this file reads and writes
    OUT/runs/ENTRANT/seed-3/     a run's folder
    OUT/logs/ENTRANT-seed-3.log  what the run said

The id depends on what is held equal only: machines that make parts of one comparison, or a later
call that adds seeds, agree on it without having met.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo import registry
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError, PluginError, RunFolderError
from rlvr_zoo.protocol import differences, digest, protocol_of
from rlvr_zoo.resolve import dotted, merge, resolve
from rlvr_zoo.track.reader import COMPARISON
from rlvr_zoo.track.storage import storage, write_atomically

RUNS, LOGS = "runs", "logs"
SCHEMA = 1
ALL = "all"
"""Stands for every registered algorithm and ablation."""

Kind = Literal["compare", "sweep", "tune"]


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """An algorithm with settings of its own."""

    name: str
    algo: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Over the algorithm's preset, by dotted key."""

    @property
    def folder(self) -> str:
        """The name, as a folder may be called."""
        return re.sub(r"[^\w.=+-]+", "_", self.name)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a comparison."""

    entrant: Entrant
    seed: int
    config: RunConfig
    path: Path
    log: Path

    @property
    def name(self) -> str:
        return f"{self.entrant.name} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Entrants and seeds under one protocol."""

    kind: Kind
    id: str
    protocol: str
    command: str
    """What was typed, the first time."""
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    """Settings that all runs share, as a config file has them."""
    tuning: str = ""
    """How the entrants' settings were chosen, in words; empty: as their presets have them."""

    def cells(self, out: Path) -> list[Cell]:
        """All runs: seed after seed, so that what is there at any time is of equal seeds.

        Raises ConfigError for settings that cannot work, and where entrants differ in more than
        what the protocol leaves to them.
        """
        cells = [
            Cell(
                entrant=entrant,
                seed=seed,
                config=self._config(entrant, seed),
                path=out / RUNS / entrant.folder / f"seed-{seed}",
                log=out / LOGS / f"{entrant.folder}-seed-{seed}.log",
            )
            for seed in self.seeds
            for entrant in self.entrants
        ]
        _check_one_protocol(cells)
        return cells

    def _config(self, entrant: Entrant, seed: int) -> RunConfig:
        own = merge({"algo": entrant.algo, "seed": seed}, dotted(entrant.settings))
        return resolve(dict(self.base), merge(own, {"track": {"comparison": self.id}}))

    def save(self, out: Path) -> None:
        """Writes comparison.json.  Raises StorageError."""
        with storage(out):
            out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)
        write_atomically(out / COMPARISON, text.encode() + b"\n")

    @classmethod
    def load(cls, out: Path) -> Comparison | None:
        """What the folder has; None where it has none.  Raises RunFolderError for a damaged one."""
        path = out / COMPARISON
        if not path.is_file():
            return None
        try:
            tree = json.loads(path.read_bytes())
            if tree.pop("schema", None) != SCHEMA:
                raise RunFolderError(f"{path}: of another schema; use the version that wrote it")
            return TypeAdapter(cls).validate_python(tree, extra="forbid")
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            cause = str(error).splitlines()[0]
            raise RunFolderError(
                f"{path}: damaged ({cause}); remove it, and repeat the command that made it"
            ) from error

    def joined(self, before: Comparison | None, out: Path) -> Comparison:
        """This one with the entrants and seeds that the folder's has besides.

        Raises RunFolderError where the folder's is another.
        """
        if before is None:
            return self
        if before.id != self.id:
            changed = differences(before.base, self.base) or ["kind or algorithm"]
            raise RunFolderError(
                f"{out}: holds {before.id}, which differs in {', '.join(changed[:5])}; repeat its"
                f" command (`{before.command}`), or choose another --output"
            )
        names = {entrant.name: entrant for entrant in before.entrants}
        for entrant in self.entrants:
            if names.setdefault(entrant.name, entrant) != entrant:
                raise RunFolderError(
                    f"{out}: holds {entrant.name} with other settings; choose another --output"
                )
        seeds = tuple(sorted({*before.seeds, *self.seeds}))
        return replace(before, entrants=tuple(names.values()), seeds=seeds)


def identify(kind: Kind, base: Mapping[str, Any], protocol: str, about: str = "") -> str:
    """The id of a comparison: its kind, its protocol or subject, and a digest of what is equal."""
    return f"{kind}-{about or protocol}-{digest({'base': base, 'about': about})[:8]}"


def parse_entrants(text: str) -> list[Entrant]:
    """`popo,grpo,popo-uniform,grpo+random_reward` as entrants; `all` is everything registered.

    Raises ConfigError for a name that is there twice, NotFoundError for an unknown one.
    """
    names: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        names += _registered() if part == ALL else [part]
    if not names:
        raise ConfigError("which algorithms? write --algos popo,grpo, or --algos all")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--algos: {twice[0]} is there twice")
    return [_entrant(name) for name in names]


def _registered() -> list[str]:
    """Every algorithm and ablation; a broken plug-in is an error, not a gap."""
    found = []
    for chosen in registry.algorithms():
        if isinstance(chosen, PluginError):
            raise chosen
        found.append(chosen.name)
    return found


def _entrant(name: str) -> Entrant:
    algo, plus, control = name.partition("+")
    algo = registry.algorithm(algo).name
    settings = {"train.control": control} if plus else {}
    return Entrant(name=algo + plus + control, algo=algo, settings=settings)


def grid(algo: str, knobs: Mapping[str, Sequence[Any]]) -> list[Entrant]:
    """One entrant for each combination of the knobs' values."""
    combinations: list[dict[str, Any]] = [{}]
    for path, values in knobs.items():
        combinations = [{**each, path: value} for each in combinations for value in values]
    return [
        Entrant(name=f"{algo} {settings_text(settings)}", algo=algo, settings=settings)
        for settings in combinations
    ]


def settings_text(settings: Mapping[str, Any]) -> str:
    """`similarity_coef=0.1 lr=0.0001`: settings by the last part of their key."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in settings.items())


def select(cells: Iterable[Cell], only: str) -> Iterator[Cell]:
    """The cells that `algo=popo,seed=3` names: each key narrows; values of one key add up.

    Raises ConfigError for another key, and for what the comparison does not have.
    """
    cells = list(cells)
    wanted: dict[str, set[str]] = {}
    for part in filter(None, (part.strip() for part in only.split(","))):
        key, _, value = part.partition("=")
        if key not in ("algo", "seed") or not value:
            raise ConfigError(f"--only {only}: write it as algo=NAME,seed=NUMBER")
        wanted.setdefault(key, set()).add(value)
    known = {
        "algo": {cell.entrant.name for cell in cells},
        "seed": {str(cell.seed) for cell in cells},
    }
    for key, values in wanted.items():
        if missing := sorted(values - known[key]):
            raise ConfigError(
                f"--only {key}={missing[0]}: not in this comparison, which has"
                f" {', '.join(sorted(known[key]))}"
            )
    for cell in cells:
        if cell.entrant.name in wanted.get("algo", known["algo"]) and str(cell.seed) in wanted.get(
            "seed", known["seed"]
        ):
            yield cell


def _check_one_protocol(cells: Sequence[Cell]) -> None:
    """Raises ConfigError where runs could not stand in one table."""
    first = cells[0]
    for cell in cells[1:]:
        changed = differences(protocol_of(first.config), protocol_of(cell.config))
        if changed:
            raise ConfigError(
                f"{first.entrant.name} and {cell.entrant.name} differ in {', '.join(changed)},"
                " which the protocol holds equal; set it for all with --set, or for none"
            )
