"""One algorithm's models and optimizer: what it sees at `prepare`, and its optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rlvr_zoo.api import Algorithm, Critic, Output, Outputs, Spec, Targets
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import DivergedError, PluginError
from rlvr_zoo.functional.mismatch import with_gradient_scaled
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.companions import CompanionModel
from rlvr_zoo.train.network import Network, prove_drivable, width_of
from rlvr_zoo.train.recompute import recompute_activations
from rlvr_zoo.train.rows import Rows, micro_batches
from rlvr_zoo.train.schedule import learning_rate


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
        lm = lm.to(backend.device)
        if config.train.gradient_checkpointing:
            recompute_activations(lm)
        self.policy = Network(lm, "value" in spec.loss["policy"], config.train.logits_tokens).to(
            backend.device
        )
        prove_drivable(self.policy)
        self.companions = {
            name: CompanionModel(self.policy, kind) for name, kind in spec.companions.items()
        }
        self.head = self._make_head(width_of(lm))
        trained: dict[str, nn.Module] = {"policy": self.policy}
        trained |= {name: c.network for name, c in self.companions.items() if c.is_trained}
        self._wrapped = {name: backend.wrap(network) for name, network in trained.items()}
        self._wrapped_head = backend.wrap(self.head) if self.head is not None else None
        self.parameters = [
            parameter
            for module in (*trained.values(), *([self.head] if self.head is not None else []))
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        self.optimizer = self._make_optimizer()
        self.num_optimizer_steps = 0
        self._total_optimizer_steps = (
            config.train.max_steps * config.train.minibatches * config.train.epochs
        )

    def _make_head(self, width: int) -> nn.Module | None:
        if self._spec.head is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            return self._spec.head(width).to(self._backend.device)

    def _make_optimizer(self) -> torch.optim.AdamW:
        """AdamW; biases and norms (one axis) are not decayed, as is usual."""
        config = self._config.optimizer
        decayed = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        return torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,
        )

    def num_parameters(self) -> dict[str, int]:
        """Parameters of every model that is held, by name."""
        held: dict[str, nn.Module] = {"policy": self.policy}
        held |= {name: companion.network for name, companion in self.companions.items()}
        if self.head is not None:
            held["head"] = self.head
        return {name: sum(p.numel() for p in model.parameters()) for name, model in held.items()}

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
        network = self.policy if name == "policy" else self.companions[name].network
        found: dict[Output, Tensor] = {}
        everything = torch.arange(len(rows.ids_NL), device=rows.ids_NL.device)
        for cut, weight in self._share(everything, rows):
            with torch.no_grad(), self._backend.autocast():
                part = self._forward(network, rows.take(cut), wanted)
            for output, tensor in part.items():
                shape = (len(rows.ids_NL), *tensor.shape[1:])
                found.setdefault(output, tensor.new_zeros(shape))[cut] += tensor * weight
        return {output: self._backend.sum(found[output]) for output in sorted(found)}

    def _forward(
        self, network: nn.Module, rows: Rows, wanted: frozenset[Output]
    ) -> dict[Output, Tensor]:
        outputs: dict[Output, Tensor] = network(
            rows.ids_NL,
            rows.prompt_tokens_N,
            rows.batch.mask_NT,
            wanted,
            self._config.rollout.temperature,
        )
        return {output: outputs[output] for output in wanted}

    def _share(
        self, index: Int64[Tensor, "m"], rows: Rows
    ) -> list[tuple[Int64[Tensor, "k"], float]]:
        """This rank's part of every micro-batch of `index`, and what it weighs.

        All ranks get equally many, as collectives need.  One that has no row of a micro-batch
        repeats another's, at weight 0.
        """
        rank, world = self._backend.rank, self._backend.world_size
        budget = self._config.train.micro_batch_tokens * world
        cuts = micro_batches(index, rows.total_tokens_N, budget)
        return [(c[rank::world], 1.0) if len(c) > rank else (c[:1], 0.0) for c in cuts]

    # ----------------------------------------------------------------- update

    def step(self, rows: Rows, targets: Targets, index: Int64[Tensor, "m"]) -> StepReport:
        """One optimizer step on the rows of `index`.

        Where no row can move the loss, no step is taken, and the metrics say so.  Raises
        DivergedError where the gradient is not finite; the weights are then untouched.
        """
        lr = learning_rate(
            self._config.optimizer, self.num_optimizer_steps, self._total_optimizer_steps
        )
        self.num_optimizer_steps += 1
        active = index[targets.active_N[index]]
        total = {name: count_N[index].sum().item() for name, count_N in targets.counts.items()}
        if len(active) == 0 or (targets.needs and total[targets.needs] == 0):
            return StepReport({"train/skipped": 1.0, "train/lr": lr}, 0)
        metrics = self._gradient(rows, targets, total, active)
        grad_norm = self._backend.clip(self.parameters, self._config.optimizer.max_grad_norm)
        if not math.isfinite(grad_norm):
            self.optimizer.zero_grad()
            raise DivergedError(
                f"the gradient's norm is {grad_norm} at optimizer step {self.num_optimizer_steps};"
                " lower optimizer.lr and start anew with another --output"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        for companion in self.companions.values():
            companion.follow(self.policy)
        metrics |= {"train/grad_norm": grad_norm, "train/lr": lr, "train/skipped": 0.0}
        return StepReport(metrics, int(rows.batch.mask_NT[active].sum()))

    def _gradient(
        self,
        rows: Rows,
        targets: Targets,
        total: Mapping[str, float],
        active: Int64[Tensor, "k"],
    ) -> dict[str, float]:
        """Adds up the gradient of all active rows."""
        modules = [*self._wrapped.values(), *([self._wrapped_head] if self._wrapped_head else [])]
        sums: dict[str, Tensor] = {}
        cuts = self._share(active, rows)
        for number, (cut, weight) in enumerate(cuts):
            with self._backend.accumulating(modules, last=number + 1 == len(cuts)):
                loss, metrics = self._loss(rows.take(cut), targets, cut, total)
                self._backend.backward(loss * weight)
            for name, value in {"train/loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value.detach() * weight
        return self._backend.sum_metrics(sums)

    def _loss(
        self, part: Rows, targets: Targets, cut: Int64[Tensor, "k"], total: Mapping[str, float]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """One micro-batch through every trained model."""
        found = {
            name: self._forward(self._wrapped[name], part, wanted)
            for name, wanted in self._spec.loss.items()
        }
        policy = found["policy"]
        if part.importance_NT is not None and "logp" in policy:
            policy["logp"] = with_gradient_scaled(policy["logp"], part.importance_NT)
        now = {name: Outputs(outputs) for name, outputs in found.items()}
        mine = {name: tensor[cut] for name, tensor in targets.rows.items()}
        return self._algorithm.loss(now, part.batch, mine, total, self._wrapped_head)


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
