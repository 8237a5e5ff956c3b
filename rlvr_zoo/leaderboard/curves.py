"""Held-out accuracy against training steps, drawn from the records of runs."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.leaderboard.board import Interval
from rlvr_zoo.leaderboard.curve import mean_over_seeds
from rlvr_zoo.leaderboard.records import refuse_mixed
from rlvr_zoo.leaderboard.statistics import MIN_SEEDS
from rlvr_zoo.track.reader import RunReader
from rlvr_zoo.track.record import EvaluationRecord, RunRecord
from rlvr_zoo.track.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

FORMATS = ("png", "svg")
_COLOURS = (  # Okabe and Ito's, told apart by colour-blind eyes; yellow is too pale for a line
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
    "#7F5539",
)
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: dict[RcKeyType, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "rlvr-zoo",
}


@dataclass(frozen=True)
class _Seed:
    path: Path
    record: RunRecord
    points: tuple[EvaluationRecord, ...]
    """Evaluations of one set of problems, by step."""


def plot(runs: Sequence[Path], out: Path, evaluation: str = "held-out") -> None:
    """Draws the runs in those folders into a .png or .svg file; equal runs give equal bytes.

    A thin line for each seed and a thick one for the mean of an algorithm's seeds, at the steps
    that all of them evaluated; around it, from three seeds on, the 95 % t-interval over seeds.

    Raises ConfigError for runs of different protocols, a run given twice, a run without that
    evaluation, or another extension; RunFolderError for a folder that is no run; StorageError.
    """
    kind = out.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ConfigError(f"{out}: name the picture .png or .svg")
    seeds = [_read(Path(run), evaluation) for run in runs]
    if not seeds:
        raise ConfigError("no runs to draw; name at least one run's folder")
    refuse_mixed([(str(seed.path), seed.record) for seed in seeds])
    write_atomically(out, _draw(_by_algorithm(seeds), evaluation, kind))


def _read(path: Path, evaluation: str) -> _Seed:
    record = RunReader(path).record()
    points = [each for each in record.evaluations if each.name == evaluation]
    if not points:
        raise ConfigError(f"{path}: has no evaluation {evaluation!r} yet; leave it out")
    return _Seed(path, record, tuple(sorted(points, key=lambda point: point.step)))


def _by_algorithm(seeds: Iterable[_Seed]) -> dict[str, list[_Seed]]:
    """Algorithm -> its seeds, both in order, whatever order they were named in."""
    groups: dict[str, dict[int, _Seed]] = defaultdict(dict)
    for seed in seeds:
        mine = groups[seed.record.algorithm]
        twin = mine.setdefault(seed.record.seed, seed)
        if twin is not seed:
            raise ConfigError(
                f"{twin.path} and {seed.path} are both {seed.record.algorithm} with seed"
                f" {seed.record.seed}; leave one out"
            )
    return {name: [mine[key] for key in sorted(mine)] for name, mine in sorted(groups.items())}


@dataclass(frozen=True)
class Mean:
    """The mean over an algorithm's seeds, and its interval where there are enough of them."""

    steps: tuple[int, ...]
    bands: tuple[Interval, ...]

    @property
    def accuracy(self) -> list[float]:
        return [band.value for band in self.bands]


def mean_of(curves: Sequence[Mapping[int, float]]) -> Mean:
    """Accuracy by step, one mapping a seed -> the mean and its band at the steps of all seeds."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    bands = [mean_over_seeds([curve[step] for curve in curves], within=(0, 1)) for step in steps]
    return Mean(tuple(steps), tuple(bands))


def _mean(seeds: Sequence[_Seed]) -> Mean:
    return mean_of([{each.step: each.accuracy for each in seed.points} for seed in seeds])


def _draw(groups: Mapping[str, Sequence[_Seed]], evaluation: str, kind: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    means = {name: _mean(seeds) for name, seeds in groups.items()}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(7.2, 4.5), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, (name, seeds) in enumerate(groups.items()):
            _curve(axes, index, _label(name, seeds), seeds, means[name])
        _start_line(axes, groups)
        _name_axes(axes, groups, evaluation)
        _legend(axes, [_label(name, groups[name]) for name in _best_first(means)])
        figure.supxlabel(_caption(groups), fontsize=7.5, color="#555555")
        picture = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(picture, format=kind, metadata=metadata)
    return picture.getvalue()


def _curve(axes: Axes, index: int, label: str, seeds: Sequence[_Seed], mean: Mean) -> None:
    colour, dashes = _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]
    for seed in seeds:
        steps = [point.step for point in seed.points]
        accuracy = [point.accuracy for point in seed.points]
        axes.plot(steps, accuracy, color=colour, linewidth=0.7, alpha=0.35)
    low = [band.low for band in mean.bands if band.low is not None]
    high = [band.high for band in mean.bands if band.high is not None]
    if low:
        axes.fill_between(mean.steps, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(
        mean.steps,
        mean.accuracy,
        color=colour,
        linestyle=dashes,
        linewidth=1.9,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=4.6,
        markeredgecolor="white",
        markeredgewidth=0.6,
        label=label,
    )


def _start_line(axes: Axes, groups: Mapping[str, Sequence[_Seed]]) -> None:
    start = [
        point.accuracy
        for seeds in groups.values()
        for seed in seeds
        for point in seed.points
        if point.step == 0
    ]
    if start:
        level = sum(start) / len(start)
        axes.axhline(level, color="#777777", linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            f"start model {level:.0%}",
            (1.0, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#666666",
        )


def _name_axes(axes: Axes, groups: Mapping[str, Sequence[_Seed]], evaluation: str) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    record = next(iter(groups.values()))[0].record
    axes.set_title(
        f"Protocol {record.protocol} ({record.protocol_digest[:12]})", loc="left", fontsize=10.5
    )
    axes.set_xlabel("training steps (rollout batches)")
    axes.set_ylabel(f"{evaluation} accuracy (% of samples)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, symbol=""))
    axes.margins(x=0.02)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -0.02), min(top, 1.02))


def _legend(axes: Axes, order: Sequence[str]) -> None:
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.legend(
        [by_label[label] for label in order],
        order,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        handlelength=3.2,
        fontsize=8.5,
    )


def _best_first(means: Mapping[str, Mean]) -> list[str]:
    """By the mean at the last step, as the curves end from top to bottom."""
    return sorted(means, key=lambda name: -means[name].accuracy[-1] if means[name].steps else 0.0)


def _label(name: str, seeds: Sequence[_Seed]) -> str:
    unfinished = sum(seed.record.status != "finished" for seed in seeds)
    label = f"{name}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    return label + (f"\n({unfinished} unfinished)" if unfinished else "")


def _caption(groups: Mapping[str, Sequence[_Seed]]) -> str:
    first = next(iter(groups.values()))[0].points[0]
    caption = (
        f"{first.num_problems} problems, {first.num_samples} sample"
        f"{'s' if first.num_samples > 1 else ''} each.  Thin: one seed.  Thick: mean over seeds."
    )
    if any(len(seeds) >= MIN_SEEDS for seeds in groups.values()):
        caption += "  Band: 95 % t-interval over seeds (from 3 seeds on)."
    return caption
