# ruff: noqa: E501 - a text that is to be replaced is quoted as it stands
"""Faults that tests have to notice: where each is planted, and what replaces what.

A text must stand in its file exactly once, so that this list cannot fall behind the code unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass

FUNCTIONAL = ("test_functional.py", "test_advantages.py", "test_surrogates.py")
MATHS = tuple(f"tests/unit/{name}" for name in FUNCTIONAL)
ALGORITHMS = ("tests/unit/algorithms", "tests/unit/test_grpo.py", "tests/unit/test_popo.py")
GOLDEN = ("tests/golden/test_golden.py",)
TRAIN = ("tests/train/test_learner.py", "tests/train/test_network.py")
SNAPSHOTS = ("tests/snapshots",)


@dataclass(frozen=True)
class Fault:
    """One fault: changes that belong together, and the tests that should see it, by stages."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    """File, text, replacement."""
    stages: tuple[tuple[str, ...], ...]
    """Run one after the other until one fails; the last resort is the snapshots."""


ADVANTAGES = "rlvr_zoo/functional/advantages.py"
AGGREGATION = "rlvr_zoo/functional/aggregation.py"
GROUPS = "rlvr_zoo/functional/groups.py"
PENALTIES = "rlvr_zoo/functional/penalties.py"
REWARDS = "rlvr_zoo/functional/rewards.py"
SURROGATES = "rlvr_zoo/functional/surrogates.py"
LEARNER = "rlvr_zoo/train/learner.py"
COMPANIONS = "rlvr_zoo/train/companions.py"
NETWORK = "rlvr_zoo/train/network.py"
BASE = "algorithms/rlvr_zoo_algorithms/_policy_gradient.py"
CISPO = "algorithms/rlvr_zoo_algorithms/cispo.py"
DAPO = "algorithms/rlvr_zoo_algorithms/dapo.py"
POPO = "algorithms/rlvr_zoo_algorithms/popo.py"
PPO = "algorithms/rlvr_zoo_algorithms/ppo.py"
RAFT = "algorithms/rlvr_zoo_algorithms/raft.py"


def maths(name: str, file: str, old: str, new: str) -> Fault:
    return Fault(name, ((file, old, new),), (MATHS, ALGORITHMS, GOLDEN, SNAPSHOTS))


def credit(name: str, file: str, old: str, new: str) -> Fault:
    return Fault(name, ((file, old, new),), (ALGORITHMS, GOLDEN, SNAPSHOTS))


def training(name: str, *changes: tuple[str, str, str]) -> Fault:
    return Fault(name, changes, (TRAIN, SNAPSHOTS))


OBSERVE_NO_GRAD = (
    LEARNER,
    "            with torch.no_grad():\n                part = self._forward",
    "            if True:\n                part = self._forward",
)
PREPARE_NO_GRAD = (LEARNER, "        with torch.no_grad():\n            return self._algorithm.prepare",
                   "        if True:\n            return self._algorithm.prepare")  # fmt: skip
STEP_THEN_FOLLOW = """\
        self.optimizer.step()
        self.optimizer.zero_grad()
        for companion in self.companions.values():
            companion.follow(self.policy)
"""
FOLLOW_THEN_STEP = """\
        for companion in self.companions.values():
            companion.follow(self.policy)
        self.optimizer.step()
        self.optimizer.zero_grad()
"""

FAULTS = [
    # ------------------------------------------------------------------- credit
    maths("rloo: the baseline holds the row itself", ADVANTAGES,
          "(group_sum(reward_N, group_N) - reward_N) / (size_N - 1)",
          "group_sum(reward_N, group_N) / size_N"),
    maths("the baseline is over the whole batch", GROUPS,
          "return group_sum(x_N, group_N) / group_size(group_N, x_N.dtype)",
          "return x_N.mean().expand_as(x_N)"),
    maths("the group's deviation is biased", GROUPS,
          "(group_size(group_N, x_N.dtype) - 1)", "group_size(group_N, x_N.dtype)"),
    maths("whitening per row", ADVANTAGES,
          "    number = mask_NT.sum()\n",
          "    number = mask_NT.sum(1, keepdim=True)\n"),
    Fault("whitening per row, its sums too",
          ((ADVANTAGES, "    number = mask_NT.sum()\n", "    number = mask_NT.sum(1, keepdim=True)\n"),
           (ADVANTAGES, "(x_NT - x_NT.sum() / (number", "(x_NT - x_NT.sum(1, keepdim=True) / (number"),
           (ADVANTAGES, "deviation_NT.square().sum() /", "deviation_NT.square().sum(1, keepdim=True) /")),
          (ALGORITHMS, GOLDEN, SNAPSHOTS)),
    credit("ppo: gamma and lambda swapped", PPO,
           "config.gamma, config.lam\n", "config.lam, config.gamma\n"),
    maths("gae: the value behind the last token is not 0", ADVANTAGES,
          "    value_NT = value_NT.where(mask_NT > 0, 0.0)\n", ""),
    maths("dapo: the overlong penalty is a bonus", REWARDS,
          "((max_tokens - buffer - length_N) / buffer).clamp(-1.0, 0.0)",
          "((length_N - max_tokens + buffer) / buffer).clamp(0.0, 1.0)"),
    credit("dapo: keep_group inverted", DAPO,
           "min(rewards) != max(rewards)", "min(rewards) == max(rewards)"),
    credit("popo: weights over all rows", POPO,
           "(score_N, positive_N, batch.group_N)",
           "(score_N, torch.ones_like(positive_N), batch.group_N)"),
    credit("popo: no length normalisation", POPO,
           "if config.length_normalize:", "if config.length_normalize and False:"),
    credit("popo: no noise", POPO,
           "target.hidden_ND + self.config.feature_noise_std * noise_ND", "target.hidden_ND"),
    credit("raft: divided by all tokens", RAFT,
           "batch.mask_NT.sum(1) * weight_N", "batch.mask_NT.sum(1)"),
    credit("popo: a step without positives is taken", POPO, '            needs="weight",\n', ""),
    # ------------------------------------------------------------------- token losses
    maths("the loss has the wrong sign", SURROGATES,
          "return -torch.minimum(ratio_NT", "return torch.minimum(ratio_NT"),
    maths("the clip is on the wrong side", SURROGATES,
          "return -torch.minimum(ratio_NT", "return -torch.maximum(ratio_NT"),
    maths("clip_low and clip_high swapped", SURROGATES,
          "ratio_NT.clamp(1.0 - clip_low, 1.0 + clip_high)",
          "ratio_NT.clamp(1.0 - clip_high, 1.0 + clip_low)"),
    maths("gspo: the sequence's ratio is of the sum", SURROGATES,
          "mean_N = row_mean(logp_NT - old_logp_NT, mask_NT)",
          "mean_N = row_mean(logp_NT - old_logp_NT, mask_NT) * mask_NT.sum(1)"),
    maths("sapo: the temperatures swapped", SURROGATES,
          "temperature_pos * positive_NT + temperature_neg * (1.0 - positive_NT)",
          "temperature_neg * positive_NT + temperature_pos * (1.0 - positive_NT)"),
    maths("ppo: no value clip", SURROGATES,
          "clipped_NT = old_value_NT + (value_NT - old_value_NT).clamp(-clip, clip)",
          "clipped_NT = value_NT"),
    maths("k3 with d reversed", PENALTIES, "(ref_logp_NT - logp_NT).clamp", "(logp_NT - ref_logp_NT).clamp"),
    maths("similarity has the wrong sign", PENALTIES,
          "return -torch.cosine_similarity", "return torch.cosine_similarity"),
    credit("entropy has the wrong sign", POPO,
           "loss = loss - config.entropy_coef * entropy", "loss = loss + config.entropy_coef * entropy"),
    # ------------------------------------------------------------------- aggregation
    maths("no mask in the aggregation", AGGREGATION,
          'return mask_NT / total["tokens"]', 'return torch.ones_like(mask_NT) / total["tokens"]'),
    maths("a mean per micro-batch", AGGREGATION,
          'return mask_NT / total["tokens"]', "return mask_NT / mask_NT.sum()"),
    maths("no division by the length", AGGREGATION,
          "mask_NT / mask_NT.sum(1, keepdim=True).clamp_min(1.0) / total",
          "mask_NT / total"),
    training("totals per micro-batch, not per step",
             (LEARNER, "mine, total, self.head)",
              "mine, {n: float(c[cut].sum()) for n, c in targets.counts.items()},"
              " self.head)")),
    training("totals of the rollout batch, not of the step",
             (LEARNER, "count_N[index].sum()", "count_N.sum()")),
    # ------------------------------------------------------------------- stop-gradients
    training("a gradient through old log-probs", OBSERVE_NO_GRAD),
    training("a gradient through advantages and weights", OBSERVE_NO_GRAD, PREPARE_NO_GRAD),
    maths("a gradient through the copy's features", PENALTIES, "target_ND.detach()", "target_ND"),
    training("the copies have gradients",
             (COMPANIONS, "requires_grad_(self.is_trained)", "requires_grad_(True)")),
    Fault("cispo: a gradient through the ratio",
          ((SURROGATES, "-ratio_NT.detach().clamp_max", "-ratio_NT.clamp_max"),
           (CISPO, "importance_ratio(logp_NT, old_logp_NT).detach()", "importance_ratio(logp_NT, old_logp_NT)")),
          (ALGORITHMS, GOLDEN, SNAPSHOTS)),
    # ------------------------------------------------------------------- the trainer
    training("the copy follows before the step", (LEARNER, STEP_THEN_FOLLOW, FOLLOW_THEN_STEP)),
    training("the copy's decay inverted",
             (COMPANIONS, "get_ema_multi_avg_fn(kind.decay)", "get_ema_multi_avg_fn(1 - kind.decay)")),
    training("the reference is the policy",
             (LEARNER, "network = self._networks[name]", "network = self.policy")),
    training("the head is not trained",
             (LEARNER, "            for module in self.modules.values()\n            for parameter",
              "            for module in self._networks.values()\n            for parameter")),
    training("the temperature is ignored", (NETWORK, ".float() / temperature", ".float()")),
    training("completions are read one place too far", (NETWORK, "+ place_M - 1\n", "+ place_M\n")),
    training("gradients are not cleared after a step",
             (LEARNER, "        self.optimizer.step()\n        self.optimizer.zero_grad()\n",
              "        self.optimizer.step()\n")),
    credit("kl is left out of the loss", BASE,
           "loss = loss + self.config.kl_coef * kl", "loss = loss + 0.0 * kl"),
]  # fmt: skip
