"""The same search for every algorithm's settings, on problems that are not the test.

    OUT/tuning.json              what is searched; another search is refused
    OUT/study.log                Optuna's journal: trials asked for, and their values
    OUT/runs/ALGO/trial-3/...    the runs of a trial
    OUT/tuned.yaml               the best settings of each, for `rlvr-zoo compare --tuned`

Trial 0 is the algorithm's preset, so that a search never ends below it.  Seeds are not those of a
comparison.  What is proposed depends on the trials before and on nothing else, so that a search
that was interrupted proposes what it would have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rlvr_zoo import registry
from rlvr_zoo.compare.comparison import Cell, settings_text
from rlvr_zoo.compare.knobs import at, parse_values
from rlvr_zoo.errors import ConfigError, RunFolderError
from rlvr_zoo.protocol import HARMLESS, differences, digest, without
from rlvr_zoo.resolve import dotted, merge, read_file, resolve
from rlvr_zoo.track.comparison import LOGS, RUNS, Entrant
from rlvr_zoo.track.reader import RunReader
from rlvr_zoo.track.storage import storage, write_atomically

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

FIRST_SEED = 1000
"""Of the trials: a comparison counts from 0."""
TUNED, SEARCH, JOURNAL = "tuned.yaml", "tuning.json", "study.log"
LOG_RATIO = 10.0
"""A range whose ends are this far apart is searched by orders of magnitude."""

Values = list[Any] | tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is tried, the same for every algorithm."""

    protocol: str
    base: Mapping[str, Any]
    """Settings that all runs share."""
    space: Mapping[str, Values]
    """By dotted key: values to choose from, or the two ends of a range."""
    seeds: int
    """Runs of each trial, whose accuracies are averaged."""

    @property
    def grid_size(self) -> int | None:
        """How many settings there are; None: no end of them."""
        if not all(isinstance(values, list) for values in self.space.values()):
            return None
        return math.prod(len(values) for values in self.space.values())


def search_of(base: Mapping[str, Any], algo: str, over: Sequence[str], seeds: int) -> Search:
    """The search that `--over` asks for; without it, the learning rate's from a tenth of the
    protocol's to ten times as much.  Raises ConfigError."""
    config = resolve(dict(base), {"algo": algo})
    lr = config.optimizer.lr
    space = dict(parse_range(text) for text in over) or {"optimizer.lr": (lr / 10, lr * 10)}
    if len(space) < len(over):
        raise ConfigError("--over: a knob is there twice; give all its values at once")
    return Search(protocol=config.protocol, base=base, space=space, seeds=seeds)


def parse_range(text: str) -> tuple[str, Values]:
    """`lr=1e-5..1e-3` or `lr=1e-5,1e-4` as a dotted key with a range, or with values.

    Raises ConfigError.
    """
    low, dots, high = text.partition("=")[2].partition("..")
    if not dots:
        return parse_values(text)
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ConfigError(f"--over {text}: write a range as KNOB=LOW..HIGH") from None
    if not -math.inf < ends[0] < ends[1] < math.inf:
        raise ConfigError(f"--over {text}: the first end has to be the lower one, and both finite")
    return parse_values(f"{text.partition('=')[0]}=0")[0], ends


class Tuning:
    """The searches of several algorithms in one folder; resumable."""

    def __init__(self, search: Search, algos: Sequence[str], out: Path) -> None:
        """Raises RunFolderError where the folder holds another search, ConfigError without Optuna
        and for knobs that an algorithm does not have."""
        self.search, self.algos, self.out = search, algos, out
        self._trials = 0
        for algo in algos:  # before anything is run
            _refuse_fixed(algo, search.space)
            for settings in self._corners():
                resolve(dict(search.base), merge({"algo": algo}, dotted(settings)))
        with storage(out):
            out.mkdir(parents=True, exist_ok=True)
        self._keep()
        self._studies = {algo: self._study(algo) for algo in algos}

    def _corners(self) -> Iterator[dict[str, Any]]:
        """Every value of a list, and both ends of a range, with the first of the other knobs."""
        space = self.search.space
        first = {key: values[0] for key, values in space.items()}
        for key, values in space.items():
            yield from ({**first, key: value} for value in values)

    def run(self, trials: int, run_cells: Callable[[list[Cell]], object]) -> None:
        """Trials until each algorithm has that many; `run_cells` runs what is not done.

        Every round has one trial of each algorithm, so that they are equally far at any time.  A
        trial whose runs failed is run again by the next call.
        """
        self._trials = trials
        for number in range(trials):
            asked = {algo: self._ask(algo, number) for algo in self.algos}
            pending = {algo: trial for algo, trial in asked.items() if trial is not None}
            cells = {algo: self._cells(algo, trial) for algo, trial in pending.items()}
            run_cells([cell for mine in cells.values() for cell in mine])
            for algo, mine in cells.items():
                self._tell(algo, pending[algo], mine)

    def best(self) -> dict[str, dict[str, Any]]:
        """Algorithm -> its best settings; of equally good ones the earliest.

        Raises RunFolderError for an algorithm whose every trial failed.
        """
        found = {}
        for algo in self.algos:
            done = [trial for trial in self._counted(algo) if trial.value is not None]
            if not done:
                raise RunFolderError(f"{self.out}: every trial of {algo} failed; see {LOGS}/ there")
            top = max(done, key=lambda trial: (trial.value, -trial.number))
            found[algo] = self._settings(top)
        return found

    def _counted(self, algo: str) -> list[FrozenTrial]:
        """The trials within the budget, which is the same for all."""
        asked = [trial for trial in self._studies[algo].get_trials() if trial.params]
        return asked[: self._trials]

    def scores(self) -> dict[str, list[tuple[dict[str, Any], float | None]]]:
        """Algorithm -> (settings, validation accuracy) of every trial; None: its runs failed."""
        return {
            algo: [(self._settings(trial), trial.value) for trial in self._counted(algo)]
            for algo in self.algos
        }

    def save(self) -> Path:
        """Writes tuned.yaml.  Raises RunFolderError where a trial failed: the budgets differ."""
        for algo, trials in self.scores().items():
            if failed := [settings_text(settings) for settings, score in trials if score is None]:
                raise RunFolderError(
                    f"{self.out}: {algo} with {failed[0]} failed, see {LOGS}/ there; the same"
                    " command tries again"
                )
        number = max(len(self._counted(algo)) for algo in self.algos)
        tree = {
            "protocol": self.search.protocol,
            "base": dict(self.search.base),
            "budget": f"{number} trials of {self.search.seeds} seeds each, for every"
            f" algorithm, on validation problems, over {', '.join(self.search.space)}",
            "settings": self.best(),
        }
        path = self.out / TUNED
        write_atomically(path, yaml.safe_dump(tree, sort_keys=False).encode())
        return path

    # ----------------------------------------------------------------- one trial

    def _ask(self, algo: str, number: int) -> FrozenTrial | None:
        """The algorithm's trial of that number, made where it is new; None where it has a value,
        or the grid has no more."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        study = self._studies[algo]
        trials = study.get_trials()
        open_ = number < len(trials) and trials[number].state == TrialState.RUNNING
        if open_ and (missing := set(self.search.space) - set(trials[number].params)):
            raise RunFolderError(
                f"{self.out}: trial {number} of {algo} was killed before it had"
                f" {', '.join(sorted(missing))}; choose another --output"
            )
        if number >= len(trials) or trials[number].state == TrialState.WAITING:
            size = self.search.grid_size
            if size is not None and number >= size:
                return None
            study.sampler = TPESampler(seed=number)
            self._suggest(algo, study.ask())
            trials = study.get_trials()
        return None if trials[number].state.is_finished() else trials[number]

    def _suggest(self, algo: str, trial: Trial) -> None:
        for key, values in self.search.space.items():
            if isinstance(values, list):
                trial.suggest_categorical(key, values)
                continue
            low, high = values
            log = low > 0 and high / low >= LOG_RATIO
            if isinstance(at(self._tree(algo), key), int):
                trial.suggest_int(key, math.ceil(low), math.floor(high), log=log)
            else:
                trial.suggest_float(key, low, high, log=log)

    def _tree(self, algo: str) -> dict[str, Any]:
        """The configuration that the algorithm's preset makes."""
        return asdict(resolve(dict(self.search.base), {"algo": algo}))

    def _settings(self, trial: FrozenTrial) -> dict[str, Any]:
        return {key: trial.params[key] for key in self.search.space}

    def _cells(self, algo: str, trial: FrozenTrial) -> list[Cell]:
        settings = self._settings(trial)
        entrant = Entrant(name=f"{algo} {settings_text(settings)}", algo=algo, settings=settings)
        folder = replace(entrant, name=algo).folder
        validation = {"problems": {"held_out": "validation"}, "suites": {"names": []}}
        cells = []
        for seed in range(FIRST_SEED, FIRST_SEED + self.search.seeds):
            own = merge({"algo": algo, "seed": seed}, merge(dotted(settings), validation))
            track = {"track": {"comparison": f"tune-{digest(asdict(self.search))[:8]}"}}
            cells.append(
                Cell(
                    entrant=entrant,
                    seed=seed,
                    config=resolve(dict(self.search.base), merge(own, track)),
                    path=self.out / RUNS / folder / f"trial-{trial.number}" / f"seed-{seed}",
                    log=self.out / LOGS / f"{folder}-trial-{trial.number}-seed-{seed}.log",
                )
            )
        return cells

    def _tell(self, algo: str, trial: FrozenTrial, cells: Sequence[Cell]) -> None:
        """A trial without all its runs stays open: they failed, or another process runs them."""
        scores = [score for cell in cells if (score := _score(cell)) is not None]
        if len(scores) == len(cells):
            mean = sum(scores) / len(scores)
            self._studies[algo].tell(trial.number, mean, skip_if_finished=True)

    # ----------------------------------------------------------------- the folder

    def _keep(self) -> None:
        path, tree = self.out / SEARCH, json.loads(json.dumps(asdict(self.search)))
        if path.is_file():
            try:
                before = dict(json.loads(path.read_bytes()))
            except (ValueError, TypeError) as error:
                raise RunFolderError(
                    f"{path}: damaged ({error}); choose another --output"
                ) from error
            if changed := differences(before, tree):
                raise RunFolderError(
                    f"{self.out}: holds a search with another {', '.join(changed[:5])}; choose"
                    " another --output"
                )
        write_atomically(path, json.dumps(tree, indent=1).encode() + b"\n")

    def _study(self, algo: str) -> Study:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed; pip install rlvr-zoo[tune]"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = self.out / JOURNAL
        try:
            study = optuna.create_study(
                study_name=algo,
                direction="maximize",
                storage=JournalStorage(JournalFileBackend(str(path))),
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:
            raise RunFolderError(f"{path}: damaged ({error}); choose another --output") from error
        if not study.get_trials():
            for settings in self._first_ones(algo):
                study.enqueue_trial(settings)
        return study

    def _first_ones(self, algo: str) -> list[dict[str, Any]]:
        """The preset, and then, where there is an end of them, all other settings."""
        preset, space = self._preset(algo), self.search.space
        if self.search.grid_size is None:
            return [preset]
        every = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
        return sorted(every, key=lambda settings: settings != preset)  # stable: in order

    def _preset(self, algo: str) -> dict[str, Any]:
        """What the algorithm's preset has for the searched knobs.

        Raises ConfigError where the search does not cover it, and would end who knows where.
        """
        found = {}
        for key, values in self.search.space.items():
            value = at(self._tree(algo), key)
            inside = (
                value in values if isinstance(values, list) else values[0] <= value <= values[1]
            )
            if not inside:
                raise ConfigError(
                    f"--over {key}: the preset of {algo} has {value}, which is not among what is"
                    " searched; include it"
                )
            found[key] = value
        return found


def _refuse_fixed(algo: str, space: Mapping[str, Values]) -> None:
    """An ablation is what its own settings make it."""
    for knob in registry.algorithm(algo).settings:
        if f"algorithm.{knob}" in space:
            raise ConfigError(f"--over {knob}: {algo} is that setting; leave one of them out")


def _score(cell: Cell) -> float | None:
    """The accuracy on validation problems after the last step; None for a run that is not done."""
    from rlvr_zoo.compare.runner import standing

    if standing(cell) != "done":
        return None
    return RunReader(cell.path).record().evaluations[-1].accuracy


def applied(
    path: Path, entrants: Sequence[Entrant], protocol: str, base: Mapping[str, Any]
) -> tuple[list[Entrant], str]:
    """The entrants with their tuned settings, and how these were found.

    An ablation or a control has its algorithm's, but for what makes it one.  Raises ConfigError for
    a file of another protocol or other common settings, and for an algorithm that it lacks.
    """
    tree = read_file(path)
    settings, made_for = tree.get("settings"), tree.get("protocol")
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: no `settings`; name a {TUNED} that `rlvr-zoo tune` wrote")
    if made_for != protocol:
        raise ConfigError(f"{path}: tuned for {made_for}, not for {protocol}; tune once more")
    if changed := differences(
        without(tree.get("base") or {}, HARMLESS), without(dict(base), HARMLESS)
    ):
        raise ConfigError(f"{path}: tuned under another {', '.join(changed[:5])}; tune once more")
    tuned = []
    for name, own in settings.items():
        if not isinstance(name, str) or not isinstance(own, dict):
            raise ConfigError(f"{path}: settings of {name} are no mapping; tune once more")
    for entrant in entrants:
        chosen = registry.algorithm(entrant.algo)
        whole = entrant.algo.rpartition("-")[0] if chosen.settings else ""
        own = settings.get(entrant.algo, settings.get(whole))
        if own is None:
            raise ConfigError(
                f"{path}: has nothing on {entrant.algo}; tune it, too, with the same budget"
            )
        fixed = {f"algorithm.{knob}" for knob in chosen.settings}  # what makes it an ablation
        kept = {key: value for key, value in own.items() if key not in fixed}
        tuned.append(replace(entrant, settings={**kept, **entrant.settings}))
    return tuned, str(tree.get("budget", ""))
