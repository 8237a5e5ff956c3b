"""What a run leaves for the leaderboard: where it came from, what it cost, what it scored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.lines import encode_number
from rlvr_zoo.track.provenance import Code, Hardware
from rlvr_zoo.track.storage import write_atomically

SCHEMA = 1
"""Version of record.json; raised whenever an older reader would misread it."""

Status = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over problems and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """What was measured after some step on a set of problems."""

    step: int
    """Training steps done before it; 0 is the start model."""
    name: str = "held-out"
    """Which set of problems: `held-out`, or a suite."""
    accuracy: float
    """Share of correct samples, mean over problems, 0 to 1; avg@k."""
    low: float
    """Lower end of the 95 % interval over problems."""
    high: float
    """Upper end of the 95 % interval over problems."""
    num_problems: int
    num_samples: int
    """Samples of each problem."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """A suite's other metrics; docs/metrics.md has their formulas."""
    rerun_sd: float | None = None
    """Standard deviation of the accuracy over reruns with other seeds on the same problems; None
    where one sample of each cannot tell."""
    logp_gap: float | None = None
    """Mean distance of the engine's log-probs from the policy's over the tokens that prove that it
    sampled the policy, nats; None where it runs the policy itself."""
    outcomes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Problem id -> 1 or 0 for each sample."""

    def shown(self, pass_at: Sequence[int] = ()) -> dict[str, float]:
        """What is logged, by metric name: of pass@k, those in `pass_at`, or powers of two and all
        samples; pass@1 only where asked for, since it is the accuracy, as maj@1 is."""
        powers = {1 << n for n in range(1, 20)} | {self.num_samples} - {1}
        wanted = set(pass_at) or powers
        metrics = {"accuracy": self.accuracy, "low": self.low, "high": self.high}
        if self.logp_gap is not None:
            metrics["logp_gap"] = self.logp_gap
        for name, estimate in self.metrics.items():
            k = re.fullmatch(r"pass_at_(\d+)", name)
            if name != "maj_at_1" and (k is None or int(k[1]) in wanted):
                metrics[name] = estimate.value
        return {f"{self.name}/{name}": value for name, value in metrics.items()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; NaN and infinities are the strings of `rlvr_zoo.track.lines`."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the run used up, over all ranks, resumed parts included."""

    generated_tokens: int = 0
    """Completion tokens that training sampled."""
    trained_tokens: int = 0
    """Completion tokens that a loss saw, once for each pass."""
    total_s: float = 0.0
    """Wall-clock seconds from start to end, without the time between a stop and its resumption."""
    rollout_s: float = 0.0
    verify_s: float = 0.0
    update_s: float = 0.0
    evaluate_s: float = 0.0
    peak_memory_bytes: int = 0
    """The most that one device held; on CPU, the process's resident set."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Parameters of each model held in memory: `policy`, companions, `head`."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The processes that began a run, or resumed it."""

    step: int
    """After which; 0 where they began it."""
    num_ranks: int
    models: Literal["whole", "fsdp", "deepspeed"]
    """Whole on each rank, or sharded, by what."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.  `dataclasses.replace` makes the next version; `RunFolder.write_record` keeps it."""

    config: Mapping[str, Any]
    """The resolved configuration, as in config.yaml."""
    protocol: str
    protocol_digest: str
    """Runs with different digests are never compared."""
    protocol_settings: Mapping[str, Any] = field(default_factory=dict)
    """What the digest is taken of, so that two digests can be told apart by name."""
    algorithm: str
    seed: int
    status: Status = "running"
    error: str = ""
    """The line that a failed run ended with, or the signal that interrupted it: `SIGTERM`."""
    steps_done: int = 0
    code: Code = field(default_factory=Code)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version, and `python`."""
    hardware: Hardware = field(default_factory=Hardware)
    launches: tuple[Launch, ...] = ()
    """One for the start, and one for each time that it was resumed."""
    model_digest: str = ""
    """Digest of the start weights."""
    model_revision: str = ""
    """The hub's commit that they came from; empty for a folder."""
    problems_source: str = ""
    """Repository and revision, folder, or generator."""
    problems_digest: str = ""
    evaluations: tuple[EvaluationRecord, ...] = ()
    """In the order of steps."""
    costs: Costs = field(default_factory=Costs)

    @property
    def control(self) -> str:
        """What the run is a control for, `train.control`; empty: it is none."""
        name = str(self.config.get("train", {}).get("control", "none"))
        return "" if name == "none" else name

    def rewound(self, step: int, evaluations: Iterable[EvaluationRecord]) -> RunRecord:
        """This record as a run that resumes after `step`, with the evaluations that the folder has
        of it, should continue it; costs stay spent."""
        return replace(
            self, status="running", error="", steps_done=step, evaluations=tuple(evaluations)
        )

    def to_json(self) -> bytes:
        """UTF-8 JSON; NaN and infinities are the strings of `rlvr_zoo.track.lines`."""
        plain = _plain(_ADAPTER.dump_python(self, mode="python"))
        text = json.dumps({"schema": SCHEMA, **plain}, indent=1, allow_nan=False)
        return text.encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> RunRecord:
        """Reads what `to_json` wrote.

        Raises RunFolderError, which names `path`, for damage and for another schema.
        """
        try:
            value = json.loads(data)
        except ValueError as error:
            raise RunFolderError(f"{path}: damaged record ({error})") from error
        schema = value.pop("schema", None) if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise RunFolderError(
                f"{path}: a record of schema {schema}, and this rlvr-zoo reads {SCHEMA};"
                " use the version that wrote it"
            )
        try:
            return _ADAPTER.validate_python(value, strict=False, extra="forbid")
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(f"{path}: damaged record ({where}: {first['msg']})") from error

    def write(self, path: Path) -> None:
        """Replaces the file atomically.  Raises StorageError."""
        write_atomically(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Raises RunFolderError for a file that is missing, damaged, or of another schema."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunFolderError(f"{path}: no record to read ({error.strerror})") from error
        return cls.from_json(data, path)


_ADAPTER = TypeAdapter(RunRecord)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return encode_number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
