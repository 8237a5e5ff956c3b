"""Run folders to entries of a leaderboard: what is usable, and what is left out and why."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr_zoo.errors import ConfigError, RunFolderError
from rlvr_zoo.leaderboard.board import LeftOut
from rlvr_zoo.protocol import differences
from rlvr_zoo.protocol import digest as digest_of
from rlvr_zoo.track.reader import CONFIG, RunReader
from rlvr_zoo.track.record import EvaluationRecord, RunRecord
from rlvr_zoo.track.state import MirrorState

OVERSHOOT = 1.10
"""Tokens over the budget that one last step may add, as a factor."""
MAX_REFUSED = 0.05
"""Share of sampled groups that an algorithm may send back where nothing bounds its tokens."""
_DAMAGE = (
    RunFolderError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
"""What reading raises for a record that is not what it should be, in whatever way."""
_DECISIVE = ("rlvr-zoo", "torch", "transformers")
"""Packages whose version has to be one on a board; the others' are listed."""
_SECONDS = ("time/sync_s", "time/rollout_s", "time/verify_s", "time/update_s")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a training step left in metrics.jsonl, as far as boards show it."""

    step: int
    tokens: float
    """Completion tokens generated up to then."""
    seconds: float
    """Of rollouts, verdicts and updates up to then."""
    signals: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run that counts."""

    record: RunRecord
    folder: str
    """Relative to the folder that was read."""
    steps: tuple[Step, ...]
    refused_share: float
    """Groups that the algorithm sent back, of all that were sampled."""
    mlflow_uri: str = ""
    mlflow_run: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What the protocol leaves to the algorithm, by dotted key."""
        config = self.record.config
        own = {f"algorithm.{key}": value for key, value in config["algorithm"].items()}
        own["optimizer.lr"] = config["optimizer"]["lr"]
        own["rollout.group_size"] = config["rollout"]["group_size"]
        return own

    @property
    def comparison(self) -> str:
        """The id of the comparison or sweep that it belongs to; empty: none."""
        return str(self.record.config.get("track", {}).get("comparison", ""))

    @property
    def in_sweep(self) -> bool:
        return self.comparison.startswith("sweep-")

    @property
    def entrant(self) -> tuple[str, ...]:
        """What runs have to agree in to be seeds of one entrant."""
        sweep = self.comparison if self.in_sweep else ""
        own = sorted((key, repr(value)) for key, value in self.settings.items())
        return (sweep, self.record.algorithm, self.record.control, repr(own))

    def final(self) -> dict[str, EvaluationRecord]:
        """Evaluations after the last step, by suite."""
        last = self.record.steps_done
        return {each.name: each for each in self.record.evaluations if each.step == last}


@dataclass(frozen=True, kw_only=True)
class Records:
    """All runs of one protocol digest."""

    entries: tuple[Entry, ...]
    """By algorithm, settings and seed."""
    left_out: tuple[LeftOut, ...]


def read_records(folders: Sequence[Path], digest: str = "") -> Records:
    """The runs below those folders; `digest` chooses a protocol by the beginning of its digest.

    Raises ConfigError for runs of different protocols, with the fields that differ.
    """
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    for where, path in _found(folders):
        try:
            entry = _read(path, where)
            reason = _unusable(entry)
        except _DAMAGE as error:
            left_out.append(LeftOut(where=where, reason=_reason(error, path)))
            continue
        if not entry.record.protocol_digest.startswith(digest):
            continue
        if reason:
            left_out.append(LeftOut(where=where, reason=reason))
        else:
            entries.append(entry)
    by_digest = {entry.record.protocol_digest: entry for entry in reversed(entries)}
    if len(by_digest) > 1:
        refuse_mixed(
            [(entry.folder, entry.record) for entry in by_digest.values()],
            f"; choose one with --digest: {', '.join(sorted(by_digest))}",
        )
    for check in (_unmeasured, _unequal_budgets, _other_versions, _duplicates):
        bad = dict(check(entries))
        left_out += [LeftOut(where=entries[n].folder, reason=why) for n, why in bad.items()]
        entries = [entry for n, entry in enumerate(entries) if n not in bad]
    ordered = sorted(entries, key=lambda entry: (entry.entrant, entry.record.seed, entry.folder))
    return Records(
        entries=tuple(ordered), left_out=tuple(sorted(left_out, key=lambda each: each.where))
    )


def _found(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(name to show, run folder) of every run, each once."""
    seen: set[Path] = set()
    for folder in folders:
        for config in sorted(folder.rglob(CONFIG)):
            path = config.parent
            if (real := path.resolve()) not in seen:
                seen.add(real)
                inside = path.relative_to(folder).as_posix()
                name = folder.resolve().name
                where = (name if inside == "." else inside) if len(folders) == 1 else (
                    name if inside == "." else f"{name}/{inside}"
                )  # fmt: skip
                yield where, path


def _reason(error: Exception, path: Path) -> str:
    said = str(error) if isinstance(error, RunFolderError) else f"damaged ({error!r})"
    return " ".join(said.split())[:300].replace(f"{path.as_posix()}/", "").replace(f"{path}: ", "")


def _read(path: Path, where: str) -> Entry:
    """Raises RunFolderError."""
    reader = RunReader(path)
    record = reader.record()
    state = MirrorState.load(path)
    steps, refused = _steps(reader, record)
    return Entry(
        record=record,
        folder=where,
        steps=steps,
        refused_share=refused,
        mlflow_uri=state.tracking_uri if state else "",
        mlflow_run=state.run_id if state else "",
    )


def _steps(reader: RunReader, record: RunRecord) -> tuple[tuple[Step, ...], float]:
    """What each training step left, and the share of groups that were sent back."""
    tokens = seconds = refused = kept = 0.0
    found: dict[int, Step] = {}
    per_step = _groups_per_step(record)
    for line in reader.metrics():
        metrics = line.metrics
        if "rollout/tokens_mean" not in metrics:
            continue
        tokens += metrics.get("rollout/generated_tokens", 0.0)
        seconds += sum(metrics.get(name, 0.0) for name in _SECONDS)
        refused += metrics.get("rollout/groups_refused", 0.0)
        kept += per_step
        found[line.step] = Step(
            step=line.step, tokens=tokens, seconds=seconds, signals=_signals(metrics)
        )
    share = refused / (refused + kept) if kept else 0.0
    return tuple(found[step] for step in sorted(found)), share


def _groups_per_step(record: RunRecord) -> float:
    rollout = record.config["rollout"]
    return float(rollout["rollouts_per_step"] / rollout["group_size"])


def _signals(metrics: Mapping[str, float]) -> dict[str, float]:
    if not metrics.get("rollout/generated_tokens", 0.0):  # nothing was sampled: solutions
        return {}
    signals = {"length": metrics["rollout/tokens_mean"]}
    if "rollout/entropy" in metrics:
        signals["entropy"] = metrics["rollout/entropy"]
    ends = ("reward/groups_all_right", "reward/groups_all_wrong")
    if all(name in metrics for name in ends):
        signals["no_signal"] = sum(metrics[name] for name in ends)
    return signals


# --------------------------------------------------------------------------- what does not count


def _unusable(entry: Entry) -> str:
    """Why a run cannot count whatever the others are; empty: it can."""
    record = entry.record
    if entry.comparison.startswith("tune-"):
        return "a trial of a tuning, which is no result"
    if record.status != "finished":
        return f"{record.status} after step {record.steps_done}" + (
            f": {record.error}" if record.error else ""
        )
    missing = [
        name
        for name, value in (
            (
                "commit or version of rlvr-zoo",
                record.code.commit or record.versions.get("rlvr-zoo"),
            ),
            ("version of torch", record.versions.get("torch")),
            ("digest of the start weights", record.model_digest),
            ("digest of the problems", record.problems_digest),
            ("settings of the protocol", record.protocol_settings),
        )
        if not value
    ]
    if missing:
        return f"no provenance: the record has no {missing[0]}"
    if not entry.final():
        return f"no evaluation after its last step, {record.steps_done}"
    return _inconsistent(entry) or next(filter(None, map(_odd, entry.final().values())), "")


def _inconsistent(entry: Entry) -> str:
    """What of a record contradicts itself; empty: nothing."""
    record = entry.record
    _ = entry.entrant  # reads all settings that a board reads
    if digest_of(record.protocol_settings) != record.protocol_digest:
        return "its settings are not those of its protocol digest"
    if [step.step for step in entry.steps] != list(range(1, record.steps_done + 1)):
        return f"metrics of {len(entry.steps)} of its {record.steps_done} steps"
    names = [(each.name, each.step) for each in record.evaluations]
    if len(set(names)) < len(names):
        return "an evaluation is there twice"
    costs = [value for value in asdict(record.costs).values() if isinstance(value, int | float)]
    if any(not math.isfinite(value) or value < 0 for value in costs):
        return "its costs are no numbers from 0 on"
    return ""


def _odd(evaluation: EvaluationRecord) -> str:
    """What is wrong with the outcomes of an evaluation; empty: nothing."""
    samples = list(evaluation.outcomes.values())
    if not samples or {len(each) for each in samples} != {evaluation.num_samples}:
        return f"{evaluation.name} has no outcomes by problem, or not of all samples"
    if any(outcome not in (0, 1) for each in samples for outcome in each):
        return f"{evaluation.name} has outcomes that are neither 0 nor 1"
    mean = sum(map(sum, samples)) / (len(samples) * evaluation.num_samples)
    if not abs(mean - evaluation.accuracy) < 1e-6:
        return f"{evaluation.name} has another accuracy than its outcomes"
    return ""


def refuse_mixed(runs: Sequence[tuple[str, RunRecord]], way_out: str = "") -> None:
    """Raises ConfigError where runs, each with its name, follow different protocols; it says in
    which settings."""
    (name, first), *others = runs
    for other_name, other in others:
        if other.protocol_digest != first.protocol_digest:
            fields = differences(first.protocol_settings, other.protocol_settings)
            raise ConfigError(
                f"{name} and {other_name} follow different protocols and cannot be compared; they"
                f" differ in {', '.join(fields[:8]) or 'the digest only'}{way_out}"
            )


def _duplicates(entries: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    first: dict[tuple[object, ...], Entry] = {}
    for number, entry in enumerate(entries):
        twin = first.setdefault((*entry.entrant, entry.record.seed), entry)
        if twin is not entry:
            yield number, f"the same entrant and seed as {twin.folder}"


def _unmeasured(entries: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    """Runs that were not measured on what most were measured on."""
    kinds: dict[str, dict[tuple[object, ...], int]] = defaultdict(lambda: defaultdict(int))
    for entry in entries:
        for name, evaluation in entry.final().items():
            kinds[name][_problems(evaluation)] += 1
    usual = {name: max(counts, key=lambda kind: counts[kind]) for name, counts in kinds.items()}
    wanted = {name for name in usual if 2 * sum(kinds[name].values()) > len(entries)}
    for number, entry in enumerate(entries):
        final = entry.final()
        if missing := sorted(wanted - set(final)):
            yield number, f"not measured on {missing[0]} after its last step"
            continue
        other = [name for name in sorted(final) if _problems(final[name]) != usual[name]]
        if other:
            yield number, f"measured on other problems, or with other samples, of {other[0]}"


def _problems(evaluation: EvaluationRecord) -> tuple[object, ...]:
    """Which problems, and how many samples of each."""
    samples = {len(each) for each in evaluation.outcomes.values()}
    return (*sorted(samples), *sorted(evaluation.outcomes))


def _unequal_budgets(entries: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    """Runs that sampled more than others were allowed to."""
    for number, entry in enumerate(entries):
        budget = entry.record.config["train"].get("max_generated_tokens", 0)
        spent = entry.steps[-1].tokens if entry.steps else 0.0
        if budget and spent > OVERSHOOT * budget:
            yield number, f"unequal budget: {spent:,.0f} tokens generated, of {budget:,}"
        elif not budget and entry.refused_share > MAX_REFUSED:
            yield (
                number,
                f"unequal budget: it sent back {entry.refused_share:.0%} of the groups that it"
                " sampled; compare under a train.max_generated_tokens",
            )


def _other_versions(entries: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    """Runs that were made with other versions of what decides numbers than most were."""
    counts = Counter(_versions(entry) for entry in entries)
    if not counts:
        return
    usual = max(sorted(counts), key=lambda versions: counts[versions])
    for number, entry in enumerate(entries):
        mine = _versions(entry)
        if mine != usual:
            other = [f"{p} {a} (others: {b})" for (p, a), (_, b) in zip(mine, usual, strict=True)
                     if a != b]  # fmt: skip
            yield number, f"made with another version: {', '.join(other)}"


def _versions(entry: Entry) -> tuple[tuple[str, str], ...]:
    return tuple((name, entry.record.versions.get(name, "")) for name in _DECISIVE)


def seeds_of(entries: Iterable[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    """Entries by entrant, seeds in order."""
    found: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.entrant].append(entry)
    return {key: sorted(mine, key=lambda entry: entry.record.seed) for key, mine in found.items()}
