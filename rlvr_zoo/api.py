"""The types that cross module borders, and the interface that an algorithm implements.

Axes, as suffixes of tensor names: P problems, G rollouts of each (a group), N = P * G rows,
T completion tokens (right padded), D hidden width.  Log-probs are in nats, at the sampling
temperature.  Importing this module imports no torch: the types are for annotations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor, nn

# --------------------------------------------------------------------------- problems to verdicts


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a known answer."""

    id: str
    prompt: str
    """The problem's text, before any prompt template."""
    answer: str
    source: str = ""
    """Where it came from, for the record: repository, file, revision."""
    tolerance: float = 0.0
    """How far off a numeric answer may be and still count; 0: not at all."""
    solution: str = ""
    """A completion that is right, where one is known: what supervised training learns from."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion."""

    ids: tuple[int, ...]
    """Completion tokens, the end-of-sequence token included where it was sampled."""
    logp: tuple[float, ...]
    """Log-prob of each token when it was sampled, at the sampling temperature, nats."""
    text: str
    truncated: bool
    """True where the token limit ended it, not the model."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says of one response."""

    correct: bool
    extracted: str
    """The answer found in the response; empty where none was."""
    method: str
    """What decided: `none` (no answer found), `string`, `number`, `symbolic`, ..."""
    problem: str = ""
    """Why no honest verdict could be had (`timeout`, `memory`, `crash`, `too_long`, `refused`);
    else empty."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """A problem with all its rollouts and their verdicts; always whole."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[Verdict, ...]
    given: tuple[float, ...] = ()
    """Rewards that are not the verdicts', as a control has them; empty: they are."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """1.0 for each correct rollout, 0.0 for the others; a control's in their place."""
        return self.given or tuple(float(verdict.correct) for verdict in self.verdicts)


# --------------------------------------------------------------------------- what a loss is made of

Output = Literal["logp", "entropy", "value", "hidden"]
"""What a model can be asked for, per completion token, or pooled over them (`hidden`)."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model said of some rows; reading what the `Spec` did not ask for is an error."""

    tensors: Mapping[Output, Tensor]

    def _asked(self, output: Output) -> Tensor:
        if output not in self.tensors:
            raise LookupError(f"{output!r} was not asked for: name it in the Spec")
        return self.tensors[output]

    @property
    def logp_NT(self) -> Float[Tensor, "n t"]:
        """Log-prob of each completion token; 0 on padding."""
        return self._asked("logp")

    @property
    def entropy_NT(self) -> Float[Tensor, "n t"]:
        """Entropy of the distribution that each completion token was drawn from, nats."""
        return self._asked("entropy")

    @property
    def value_NT(self) -> Float[Tensor, "n t"]:
        """Estimate of the return from each completion token on; 0 on padding."""
        return self._asked("value")

    @property
    def hidden_ND(self) -> Float[Tensor, "n d"]:
        """Mean over the completion's tokens of the last hidden state, after the final norm."""
        return self._asked("hidden")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows as an algorithm sees them: whole groups at `prepare`, loose rows at `loss`."""

    mask_NT: Float[Tensor, "n t"]
    """1 on completion tokens (end of sequence included), 0 on padding."""
    reward_N: Float[Tensor, "n"]
    group_N: Int64[Tensor, "n"]
    """Which group a row belongs to; rows of one group carry one number."""
    truncated_N: Bool[Tensor, "n"]
    seed_N: Int64[Tensor, "n"]
    """A seed of each row's own, for noise that no split of the batch can change."""
    max_completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What `prepare` found out, one entry a row: nothing here carries a gradient."""

    rows: Mapping[str, Tensor]
    """Tensors with rows first, by a name with its axes; handed to `loss` for its rows."""
    counts: Mapping[str, Float[Tensor, "n"]]
    """What each row adds to a normaliser; `loss` gets the sums over the whole optimizer step."""
    active_N: Bool[Tensor, "n"]
    """False where a row cannot move the loss, so that no model needs to see it at `loss`."""
    needs: str = ""
    """A count: where it adds up to 0 over an optimizer step, no step is taken."""
    metrics: Mapping[str, float] = field(default_factory=dict)


# --------------------------------------------------------------------------- the declaration


@dataclass(frozen=True)
class Frozen:
    """A copy of the start weights that never moves."""


@dataclass(frozen=True)
class Ema:
    """A copy that follows: after each optimizer step, copy <- decay*copy + (1-decay)*policy."""

    decay: float


@dataclass(frozen=True)
class Critic:
    """A value network that starts as the policy with a head of zeros, and is trained beside it."""


Companion = Frozen | Ema | Critic


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What an algorithm needs of the trainer, for one setting of its knobs."""

    companions: Mapping[str, Companion] = field(default_factory=dict)
    """Models besides the policy, by the name under which their outputs come."""
    prepare: Mapping[str, frozenset[Output]] = field(default_factory=dict)
    """Outputs wanted once per rollout batch, without gradient, by model: `policy`, companions."""
    loss: Mapping[str, frozenset[Output]]
    """Outputs wanted at every micro-batch, with gradient, by model; a policy that is asked for
    `value` gets a value head on its trunk."""
    head: Callable[[int], nn.Module] | None = None
    """Builds a trained head from the policy's hidden width D; its parameters join the optimizer."""
    min_group_size: int = 1
    why_min_group_size: str = ""


C = TypeVar("C")


class Algorithm(ABC, Generic[C]):
    """Turns groups into a loss.

    Two rules.  `prepare` sees whole groups of the whole step batch, `loss` sees loose rows: after
    `prepare` the trainer may shuffle, bucket and shard rows as it likes.  A loss is a sum of row
    terms already divided by totals, never a mean: so no split can change the gradient.
    """

    Config: ClassVar[type]
    """A frozen dataclass of this algorithm's own knobs; its defaults are the paper's."""
    paper: ClassVar[str]
    """Title and arXiv number."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Ablations: suffix -> settings; `popo` with a variant `uniform` answers to `popo-uniform`."""
    conventions: ClassVar[Mapping[str, Any]] = {}
    """What is fixed here and a setting elsewhere, in the words of golden cases: name -> value."""
    golden_settings: ClassVar[Mapping[str, Any]] = {}
    """Knobs that golden cases do not speak of, set to what they imply."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Protocol -> settings of the run that the protocol leaves to the algorithm, by section."""

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def spec(cls, config: C) -> Spec:
        """What these settings need; a zero coefficient must not cost a model."""

    def keep_group(self, rewards: Sequence[float]) -> bool:
        """False asks the trainer for another problem in this group's place."""
        return True

    @abstractmethod
    def prepare(self, batch: Batch, seen: Mapping[str, Outputs]) -> Targets:
        """Credit for the whole step batch: advantages or weights, and the counts of each row."""

    @abstractmethod
    def loss(
        self,
        now: Mapping[str, Outputs],
        batch: Batch,
        targets: Mapping[str, Tensor],
        total: Mapping[str, float],
        head: nn.Module | None,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """These rows' share of the loss, and metrics that add up in the same way."""
