"""A budget of generated tokens ends a run, for all algorithms alike."""

from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

from rlvr_zoo.track.reader import RunReader

Launch = Callable[..., "Popen[str]"]


def test_dynamic_sampling_buys_no_more_tokens_than_others(launch: Launch, tmp_path: Path) -> None:
    steps = {}
    for algo in ("dapo", "grpo"):
        process = launch(
            "run", f"--algo={algo}", "--protocol=micro", f"--output={algo}", "--max-steps=40",
            "--set=train.max_generated_tokens=2500", "--set=rollout.rollouts_per_step=32",
            "--set=evaluate.every=0", "--set=suites.names=[]", "--set=problems.num_held_out=16",
        )  # fmt: skip
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        record = RunReader(tmp_path / algo).record()
        assert record.status == "finished"
        assert record.evaluations[-1].step == record.steps_done
        steps[algo] = record.steps_done
        assert 2500 <= record.costs.generated_tokens < 2500 + 5 * 32 * 12
    assert steps["dapo"] < steps["grpo"] < 40
