"""One algorithm's models and optimizer: what it sees at `prepare`, and its optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rlvr_zoo.api import Algorithm, Critic, Output, Outputs, Spec, Targets
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import DivergedError, PluginError
from rlvr_zoo.functional.mismatch import with_gradient_scaled
from rlvr_zoo.train.adapters import add_adapters, merged, own
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.companions import CompanionModel
from rlvr_zoo.train.network import Network, prove_drivable, width_of
from rlvr_zoo.train.optimizer import make_optimizer, set_lr
from rlvr_zoo.train.passes import Passes
from rlvr_zoo.train.recompute import recompute_activations
from rlvr_zoo.train.rows import Rows
from rlvr_zoo.train.schedule import learning_rate
from rlvr_zoo.train.sharding import moved, shape_of


@dataclass
class StepReport:
    """What one optimizer step did."""

    metrics: dict[str, float]
    trained_tokens: int
    """Completion tokens that the loss saw, over all ranks."""


class Learner:
    """Holds the policy, its companions, the head and the optimizer, all in fp32."""

    def __init__(
        self, lm: Any, algorithm: Algorithm[Any], spec: Spec, config: RunConfig, backend: Backend
    ) -> None:
        """`lm` is the start policy; it becomes the policy.  Raises ModelError if it cannot be."""
        self._algorithm, self._spec, self._config, self._backend = algorithm, spec, config, backend
        _check_spec(spec)
        if config.lora.rank:
            add_adapters(lm, config.lora, config.seed)
        if config.train.gradient_checkpointing:
            recompute_activations(lm)
        self.policy = Network(lm, "value" in spec.loss["policy"], config.train.logits_tokens)
        prove_drivable(self.policy)
        self.companions = {
            name: CompanionModel(self.policy, kind) for name, kind in spec.companions.items()
        }
        self._networks = {"policy": self.policy}
        self._networks |= {name: c.network for name, c in self.companions.items()}
        self.head = self._make_head(width_of(lm))
        self.modules: dict[str, nn.Module] = dict(self._networks)
        if self.head is not None:
            self.modules["head"] = self.head
        for name, module in self.modules.items():
            backend.place(module, full_precision=name == "head")
        self.parameters = [
            moved(parameter)
            for module in self.modules.values()
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        self.optimizer = make_optimizer(self.parameters, config.optimizer, backend.device)
        self.num_optimizer_steps = 0
        self.num_bad_steps = 0
        """In a row, until now: loss or gradient not finite."""
        self._passes = Passes(config.train, backend, self.optimizer.zero_grad)
        self._total_optimizer_steps = (
            config.train.max_steps * config.train.minibatches * config.train.epochs
        )

    def _make_head(self, width: int) -> nn.Module | None:
        if self._spec.head is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            return self._spec.head(width)

    def num_parameters(self) -> dict[str, int]:
        """Parameters of every model that is held, by name."""
        sizes = {name: own(module).values() for name, module in self.modules.items()}
        sizes["policy"] = dict(self.policy.named_parameters()).values()
        return {name: sum(shape_of(p).numel() for p in each) for name, each in sizes.items()}

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's, as rollout engines take them; gone through on every rank."""
        return merged(self.policy.lm)

    @property
    def micro_batch_tokens(self) -> int:
        """The most of a micro-batch; less than was asked for where memory ran out."""
        return self._passes.micro_batch_tokens

    # ----------------------------------------------------------------- prepare

    def old_logp(self, rows: Rows) -> Float[Tensor, "n t"]:
        """Log-probs of the rollouts under the policy as it is now, the same on every rank."""
        return self._observe("policy", frozenset({"logp"}), rows)["logp"]

    def prepare(self, rows: Rows, old_logp_NT: Float[Tensor, "n t"] | None = None) -> Targets:
        """The algorithm's targets for the whole step batch, the same on every rank.

        `old_logp_NT` spares the policy's forward pass where log-probs are all that is asked of it.
        """
        seen: dict[str, Outputs] = {}
        for name, wanted in self._spec.prepare.items():
            if name == "policy" and wanted == {"logp"} and old_logp_NT is not None:
                seen[name] = Outputs({"logp": old_logp_NT})
            else:
                seen[name] = Outputs(self._observe(name, wanted, rows))
        with torch.no_grad():
            return self._algorithm.prepare(rows.batch, seen)

    def _observe(self, name: str, wanted: frozenset[Output], rows: Rows) -> dict[Output, Tensor]:
        """A model's outputs on all rows."""
        network = self._networks[name]
        number, tokens = rows.batch.mask_NT.shape
        everything = torch.arange(number, device=rows.ids_NL.device)

        def run_pass(cut: Tensor, weight: float) -> tuple[Tensor, dict[Output, Tensor]]:
            with torch.no_grad():
                part = self._forward(network, rows.take(cut), wanted)
            return cut, {output: tensor * weight for output, tensor in part.items()}

        parts = self._passes.run(everything, rows, run_pass)
        found: dict[Output, Tensor] = {}
        for output in sorted(wanted):
            width = width_of(network.lm) if output == "hidden" else tokens
            mine = torch.zeros(number, width, device=self._backend.device)
            for cut, part in parts:
                mine[cut] += part[output]
            found[output] = self._backend.sum(mine)
        return found

    def _forward(
        self, network: nn.Module, rows: Rows, wanted: frozenset[Output]
    ) -> dict[Output, Tensor]:
        with self._backend.autocast():
            outputs: dict[Output, Tensor] = network(
                rows.ids_NL,
                rows.prompt_tokens_N,
                rows.batch.mask_NT,
                wanted,
                self._config.rollout.temperature,
            )
        return {output: outputs[output] for output in wanted}

    # ----------------------------------------------------------------- update

    def step(self, rows: Rows, targets: Targets, index: Int64[Tensor, "m"]) -> StepReport:
        """One optimizer step on the rows of `index`.

        Where no row can move the loss, no step is taken, nor where the loss or the gradient is not
        finite; the metrics say so.  Raises DivergedError where that goes on; the weights are then
        untouched.
        """
        lr = learning_rate(
            self._config.optimizer, self.num_optimizer_steps, self._total_optimizer_steps
        )
        self.num_optimizer_steps += 1
        active = index[targets.active_N[index]]
        total = {name: count_N[index].sum().item() for name, count_N in targets.counts.items()}
        if len(active) == 0 or (targets.needs and total[targets.needs] == 0):
            return StepReport({"train/skipped": 1.0, "train/not_finite": 0.0, "train/lr": lr}, 0)
        mine = self._gradient(rows, targets, total, active)
        self._backend.sum_gradients(self.parameters)
        metrics = self._backend.sum_metrics(mine)
        grad_norm = self._backend.clip(self.parameters, self._config.optimizer.max_grad_norm)
        metrics |= {"train/grad_norm": grad_norm, "train/lr": lr}
        trained_tokens = int(rows.batch.mask_NT[active].sum())
        if not (math.isfinite(grad_norm) and math.isfinite(metrics["train/loss"])):
            self._leave_out(metrics)
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            return StepReport(
                finite | {"train/skipped": 1.0, "train/not_finite": 1.0}, trained_tokens
            )
        self.num_bad_steps = 0
        set_lr(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for companion in self.companions.values():
            companion.follow(self.policy)
        taken = {"train/skipped": 0.0, "train/not_finite": 0.0}
        return StepReport(metrics | taken, trained_tokens)

    def _leave_out(self, metrics: Mapping[str, float]) -> None:
        """Counts a step that cannot be taken.  Raises DivergedError at the limit."""
        self.optimizer.zero_grad()
        self.num_bad_steps += 1
        if self.num_bad_steps >= self._config.train.max_bad_steps:
            raise DivergedError(
                f"the loss is {metrics['train/loss']:g} and the gradient's norm"
                f" {metrics['train/grad_norm']:g} at optimizer step {self.num_optimizer_steps},"
                f" not finite {self.num_bad_steps} times in a row (train.max_bad_steps);"
                " lower optimizer.lr and start anew with another --output"
            )

    def _gradient(
        self,
        rows: Rows,
        targets: Targets,
        total: Mapping[str, float],
        active: Int64[Tensor, "k"],
    ) -> dict[str, Tensor]:
        """Adds up the gradient of this rank's active rows, and its share of the metrics."""

        def run_pass(cut: Tensor, weight: float) -> dict[str, Tensor]:
            loss, metrics = self._loss(rows.take(cut), targets, cut, total)
            (loss * weight).backward()
            self._backend.rest()
            found = {"train/loss": loss, **metrics}
            return {name: value.detach() * weight for name, value in found.items()}

        self.optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        for found in self._passes.run(active, rows, run_pass):
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def _loss(
        self, part: Rows, targets: Targets, cut: Int64[Tensor, "k"], total: Mapping[str, float]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """One micro-batch through every trained model."""
        found = {
            name: self._forward(self._networks[name], part, wanted)
            for name, wanted in self._spec.loss.items()
        }
        policy = found["policy"]
        if part.importance_NT is not None and "logp" in policy:
            policy["logp"] = with_gradient_scaled(policy["logp"], part.importance_NT)
        now = {name: Outputs(outputs) for name, outputs in found.items()}
        mine = {name: tensor[cut] for name, tensor in targets.rows.items()}
        return self._algorithm.loss(now, part.batch, mine, total, self.head)


def _check_spec(spec: Spec) -> None:
    """Refuses a declaration that names models it does not have, or trains one that is fixed.

    Raises PluginError.
    """
    known = {"policy", *spec.companions}
    trained = {"policy"} | {n for n, kind in spec.companions.items() if isinstance(kind, Critic)}
    if unknown := sorted(set(spec.prepare) - known):
        raise PluginError(f"the algorithm's Spec.prepare names {unknown}, which are no companions")
    if fixed := sorted(set(spec.loss) - trained):
        raise PluginError(f"the algorithm's Spec.loss names {fixed}, which are not trained")
