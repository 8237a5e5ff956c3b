"""The engine `replay` gives back what a run recorded, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlvr_zoo.api import Group, Problem, Rollout, Verdict
from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.errors import ConfigError, EngineError, RunFolderError
from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer
from rlvr_zoo.rollout.base import Request, Sampling
from rlvr_zoo.rollout.replay import ReplayEngine
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.record import RunRecord

SAMPLING = Sampling(temperature=1.0, max_completion_tokens=8)


class Model:
    tokenizer = build_tokenizer(Recipe())
    lm = build_model(Recipe(), tokenizer)


def rollout(text: str, truncated: bool = False) -> Rollout:
    ids = tuple(Model.tokenizer(text)["input_ids"])
    return Rollout(ids=ids, logp=tuple(-0.1 * n for n in range(len(ids))), text=text,
                   truncated=truncated)  # fmt: skip


def recorded(path: Path, *rollouts: Rollout) -> str:
    """A run that sampled these with seeds 1, 2, ..."""
    verdicts = tuple(Verdict(True, "", "string") for _ in rollouts)
    group = Group(Problem("a", "1+1=", "2"), (1,), rollouts, verdicts)
    with RunFolder.create(path, {"seed": 0}) as folder:
        folder.append_rollouts(1, [(group, range(1, len(rollouts) + 1))] if rollouts else [])
        folder.write_record(record())
    return str(path)


def record(**changed: Any) -> RunRecord:
    rollout = {"temperature": 1.0, "group_size": 8, "max_completion_tokens": 8, "batch_tokens": 9}
    rollout |= {key: value for key, value in changed.items() if key in rollout}
    given = {key: value for key, value in changed.items() if key in ("seed", "model_digest")}
    return RunRecord(
        **{
            "config": {"rollout": rollout},
            "protocol": "micro",
            "protocol_digest": "x",
            "protocol_settings": {"prompts_digest": changed.get("prompts_digest", "p")},
            "algorithm": "grpo",
            "seed": 3,
            "model_digest": "m",
            **given,
        }  # type: ignore[arg-type]
    )


def engine(path: str) -> ReplayEngine:
    model: Any = Model()
    config = RolloutConfig(engine="replay", replay=path, max_completion_tokens=8)
    return ReplayEngine(model, config)


def test_rollouts_come_back_by_their_seeds(tmp_path: Path) -> None:
    two, three = rollout("2"), rollout("31", truncated=True)
    replay = engine(recorded(tmp_path / "run", two, three))
    replay.sync(lambda: [], 0)
    assert replay.generate([Request((1,), (2, 1)), Request((1,), (2,))], SAMPLING) == [
        [three, two],
        [three],
    ]
    assert not replay.exact and not replay.follows


def test_a_seed_that_was_not_recorded_is_an_error(tmp_path: Path) -> None:
    replay = engine(recorded(tmp_path / "run", rollout("2")))
    with pytest.raises(EngineError, match=r"rollouts.jsonl: no rollout was sampled with seed 7"):
        replay.generate([Request((1,), (1, 7))], SAMPLING)


def test_what_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name a recorded run with rollout.replay=DIR"):
        engine("")
    with pytest.raises(RunFolderError, match="holds no run"):
        engine(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"track.rollouts=true"):
        engine(recorded(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"ids": (), "logp": ()}, "0 tokens, and rollout.max_completion_tokens is 8"),
        ({"ids": (3,) * 9, "logp": (0.0,) * 9}, "9 tokens, and"),
        ({"ids": (3, 4, 5)}, "2 log-probs of 3 tokens"),
        ({"ids": (3, 10**9)}, "token 1000000000, and the model has"),
        ({"ids": (-1, 3)}, "token -1, and the model has"),
        ({"logp": (0.0, 77.0)}, "log-prob nan is not finite"),
    ],
)
def test_a_line_that_is_no_rollout_is_named(
    tmp_path: Path, broken: dict[str, Any], why: str
) -> None:
    good = rollout("31")
    assert len(good.ids) == 2
    path = recorded(tmp_path / "run", good, replace(good, **broken))
    lines = tmp_path / "run/rollouts.jsonl"
    lines.write_text(lines.read_text().replace("77.0", "NaN"))  # we never write it
    with pytest.raises(EngineError, match=rf"rollouts\.jsonl, line 2: {why}"):
        engine(path)


def test_a_recording_of_other_settings_is_refused(tmp_path: Path) -> None:
    replay = engine(recorded(tmp_path / "run", rollout("2")))
    replay.refuse_other_run(record(batch_tokens=1))  # cannot change a rollout
    for name, value, shown in (
        ("seed", 4, "seed (3, and here 4)"),
        ("group_size", 4, "rollout.group_size (8, and here 4)"),
        ("temperature", 0.5, "rollout.temperature (1.0, and here 0.5)"),
        ("max_completion_tokens", 7, "rollout.max_completion_tokens (8, and here 7)"),
        ("model_digest", "n", "model (digest of its weights) (m, and here n)"),
        ("prompts_digest", "q", "prompts (digest) (p, and here q)"),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"recorded with another {shown}; set")):
            replay.refuse_other_run(record(**{name: value}))


def test_recordings_are_told_apart(tmp_path: Path) -> None:
    one, same, other = (
        engine(recorded(tmp_path / name, rollout(text))).recording
        for name, text in (("a", "2"), ("b", "2"), ("c", "3"))
    )
    assert one == same != other
