"""Settings of rollout engines that cannot work are refused before anything starts."""

from pathlib import Path

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.protocol import HARMLESS, digest, protocol_of
from rlvr_zoo.resolve import parse_set, resolve, resolve_again, resolve_eval


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("train.importance_cap=0",), "train.importance_cap=0.0: set more than 0"),
        (
            ("train.importance=mask", "train.importance_cap=1"),
            "train.importance_cap=1.0: train.importance=mask would leave out tokens",
        ),
        (("rollout.vllm.timeout_s=1e30",), "rollout.vllm.timeout_s=1e+30: set 1e+06 or less"),
        (("rollout.vllm.max_num_seqs=-1",), "rollout.vllm.max_num_seqs=-1: set 0 or more"),
        (
            ("rollout.engine=vllm", "rollout.temperature=2.5"),
            "rollout.temperature=2.5: vLLM takes 2 at most",
        ),
        (
            ("rollout.engine=vllm", "evaluate.temperature=3"),
            "evaluate.temperature=3.0: vLLM takes 2 at most",
        ),
        (
            ("rollout.engine=vllm", "suites.temperature=3"),
            "suites.temperature=3.0: vLLM takes 2 at most",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({}, {"algo": "grpo", **parse_set(settings)})
    assert said in str(caught.value)


def test_what_can_work() -> None:
    settings = ["rollout.temperature=2.5", "rollout.vllm.max_num_seqs=0"]
    settings += ["train.importance=mask", "train.importance_cap=1.01"]
    assert resolve({}, {"algo": "grpo", **parse_set(settings)}).rollout.temperature == 2.5
    resolve({}, {"algo": "grpo", **parse_set(["rollout.engine=vllm", "rollout.temperature=2"])})


def test_an_evaluation_replays_nothing_and_has_a_limit_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.engine=replay: an evaluation samples"):
        resolve_eval("tiny", parse_set(["suites.names=[micro]", "rollout.engine=replay"]))
    with pytest.raises(ConfigError, match=r"suites\.temperature=2\.5: vLLM"):
        flags = ["suites.names=[micro]", "rollout.engine=vllm", "suites.temperature=2.5"]
        resolve_eval("tiny", parse_set(flags))
    limit = parse_set(["suites.names=[micro]", "rollout.max_logp_gap=0.3"])
    assert resolve_eval("tiny", limit).rollout.max_logp_gap == 0.3


def test_a_recording_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["rollout.engine=replay", "rollout.replay=runs/a"]
    config = resolve({}, {"algo": "grpo", **parse_set(settings)})
    assert config.rollout.replay == str(tmp_path / "runs/a")


def test_the_limit_of_the_gap_is_no_part_of_the_protocol() -> None:
    """It can only stop a run, which then goes on with another."""
    assert ("rollout", "max_logp_gap") in HARMLESS
    one, other = (
        resolve({}, {"algo": "grpo", **parse_set([f"rollout.max_logp_gap={gap}"])})
        for gap in (0.1, 0.2)
    )
    assert digest(protocol_of(one)) == digest(protocol_of(other))
    assert resolve_again({"algo": "grpo"}, {}, {"rollout": {"max_logp_gap": 1.0}})
