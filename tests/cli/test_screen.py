"""What a run says of its steps."""

from pathlib import Path

import pytest

from rlvr_zoo.cli.screen import Screen
from rlvr_zoo.resolve import resolve


def test_smaller_micro_batches_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    config = resolve({}, {"algo": "popo", "train": {"micro_batch_tokens": 400}})
    with Screen() as screen:
        screen.ready(config, Path("run"), 0, [])
        for step, tokens in enumerate((400.0, 200.0, 200.0, 100.0), start=1):
            metrics = {"reward/mean": 0.5, "train/skipped": 0.0, "train/not_finite": 0.0}
            screen.step(step, metrics | {"train/micro_batch_tokens": tokens})
        screen.step(5, {"reward/mean": 0.5})
    said = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert [line.split(":")[1] for line in said] == [" step 2", " step 4"]
    assert "have 200 tokens" in said[0] and "have 100 tokens" in said[1]
