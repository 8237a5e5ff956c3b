"""Which runs a comparison has: from names and settings to checked configurations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlvr_zoo import registry
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError, PluginError, RunFolderError
from rlvr_zoo.protocol import differences, digest, protocol_of
from rlvr_zoo.resolve import dotted, merge, resolve
from rlvr_zoo.track.comparison import LOGS, Comparison, Entrant, Kind, run_folder

ALL = "all"
"""Stands for every registered algorithm and ablation."""


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


def cells_of(comparison: Comparison, out: Path) -> list[Cell]:
    """All runs: seed after seed, so that what is there at any time is of equal seeds.

    Raises ConfigError for settings that cannot work, and where entrants differ in more than what
    the protocol leaves to them.
    """
    folders = [entrant.folder for entrant in comparison.entrants]
    for entrant in comparison.entrants:
        if folders.count(entrant.folder) > 1:
            raise ConfigError(
                f"{entrant.name}: another entrant's folder would be called {entrant.folder}, too;"
                " compare them in two folders"
            )
    cells = [
        Cell(
            entrant=entrant,
            seed=seed,
            config=_config(comparison, entrant, seed),
            path=run_folder(out, entrant.folder, seed),
            log=out / LOGS / f"{entrant.folder}-seed-{seed}.log",
        )
        for seed in comparison.seeds
        for entrant in comparison.entrants
    ]
    _check_one_protocol(cells)
    return cells


def _config(comparison: Comparison, entrant: Entrant, seed: int) -> RunConfig:
    own = merge({"algo": entrant.algo, "seed": seed}, dotted(entrant.settings))
    return resolve(dict(comparison.base), merge(own, {"track": {"comparison": comparison.id}}))


def joined(new: Comparison, before: Comparison, out: Path) -> Comparison:
    """What the folder `out` has, with the entrants and seeds that are new.

    Raises RunFolderError where the folder's is another comparison.
    """
    if before.id != new.id:
        changed = differences(before.base, new.base) or ["kind, algorithm or tuning"]
        raise RunFolderError(
            f"{out}: holds {before.id}, which differs in {', '.join(changed[:5])}; repeat its"
            f" command (`{before.command}`), or choose another --output"
        )
    names = {entrant.name: entrant for entrant in before.entrants}
    for entrant in new.entrants:
        if names.setdefault(entrant.name, entrant) != entrant:
            raise RunFolderError(
                f"{out}: holds {entrant.name} with other settings; choose another --output"
            )
    seeds = tuple(sorted({*before.seeds, *new.seeds}))
    return replace(before, entrants=tuple(names.values()), seeds=seeds)


def identify(
    kind: Kind, base: Mapping[str, Any], protocol: str, about: str = "", tuned: str = ""
) -> str:
    """The id of a comparison: its kind, its protocol or subject, and a digest of what is equal.

    So machines that make parts of one comparison, or a later call that adds seeds, agree on it.
    """
    equal = {"base": base, "about": about} | ({"tuned": tuned} if tuned else {})
    return f"{kind}-{about or protocol}-{digest(equal)[:8]}"


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
    if plus and control == "none":
        raise ConfigError(
            f"--algos {name}: no control at all is the algorithm itself; write {algo}"
        )
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
