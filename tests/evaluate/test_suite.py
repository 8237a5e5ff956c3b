"""A suite measured through lm-eval: what is sampled, kept, gone on with, and scored."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from rlvr_zoo.errors import PluginError, RunFolderError
from rlvr_zoo.evaluate.base import Standing
from rlvr_zoo.evaluate.estimators import pass_at
from rlvr_zoo.launch.signals import Terminated
from rlvr_zoo.rollout.base import batch_tokens, sample_seed

from .conftest import Make, Sampler, Sums, unproven


def wanted(number: int, samples: int = 4) -> tuple[int, ...]:
    """What `Sampler` gets right of a problem."""
    seeds = [sample_seed(5, "suite/sums", 0, f"sums/{number}", n) for n in range(samples)]
    return tuple(int(seed % 3 != 0) for seed in seeds)


def test_the_record_of_a_suite(evaluator: Make) -> None:
    record = evaluator(Sampler()).measure(7, unproven)
    outcomes = {f"sums/{n}": wanted(n) for n in range(1, 7)}
    assert record.outcomes == outcomes
    correct = [sum(samples) for samples in outcomes.values()]
    assert 0 < sum(correct) < 24, "the seeds leave something to tell"
    assert (record.step, record.name, record.num_problems, record.num_samples) == (7, "sums", 6, 4)
    assert record.accuracy == pytest.approx(sum(correct) / 24)
    assert record.low < record.accuracy < record.high
    assert record.rerun_sd is not None and record.rerun_sd > 0
    metrics = record.metrics
    for k in range(1, 5):
        mean = sum(pass_at(k, 4, c) for c in correct) / 6
        assert metrics[f"pass_at_{k}"].value == pytest.approx(mean)
    assert metrics["tokens"].value == pytest.approx(3.5)  # as many as ones: 1 to 6
    assert metrics["no_answer"].value == metrics["verify_failed"].value == 0
    assert 0 < metrics["truncated"].value < 1
    assert set(metrics) - {f"pass_at_{k}" for k in range(1, 5)} == {
        "maj_at_4", "tokens", "truncated", "no_answer", "verify_failed",
    }  # fmt: skip


def test_every_sample_is_kept(evaluator: Make, tmp_path: Path) -> None:
    evaluator(Sampler()).measure(0, unproven)
    rows = [json.loads(line) for line in (tmp_path / "samples/sums.jsonl").read_text().splitlines()]
    assert {(row["problem"], row["sample"]) for row in rows} == {
        (f"sums/{n}", k) for n in range(1, 7) for k in range(4)
    }
    row = next(row for row in rows if (row["problem"], row["sample"]) == ("sums/2", 1))
    right = wanted(2)[1]
    assert row["prompt"] == "11+1=" and row["correct"] is bool(right)
    assert row["completion"] == rf"\boxed{{{3 - right}}}" and row["extracted"] == str(3 - right)
    assert row["num_tokens"] == 2 and row["method"] in ("string", "number")


@pytest.mark.parametrize("patience", [0, 5, 23])
def test_an_interrupted_evaluation_goes_on(evaluator: Make, tmp_path: Path, patience: int) -> None:
    whole = evaluator(Sampler(), tmp_path / "whole").measure(0, unproven)
    small: dict[str, Any] = {"folder": tmp_path / "parts", "batch_tokens": 40}
    first = Sampler(patience)
    with pytest.raises(KeyboardInterrupt):
        evaluator(first, **small).measure(0, unproven)
    done = first.num_sampled - first.calls[-1]
    if done:
        with (tmp_path / "parts/sums.jsonl").open("a") as file:
            file.write('{"step": 0, "problem": "sums/')  # as a kill leaves it
    second = Sampler()
    assert evaluator(second, **small).measure(0, unproven) == whole
    assert second.num_sampled == 24 - done


def test_more_samples_or_problems_later_use_those_there_are(evaluator: Make) -> None:
    evaluator(Sampler(), limit=3, num_samples=2).measure(0, unproven)
    more = Sampler()
    record = evaluator(more, num_samples=5).measure(0, unproven)
    assert more.num_sampled == 30 - 6
    assert record.outcomes["sums/2"] == wanted(2, 5)
    none = Sampler()
    fewer = evaluator(none, num_samples=2, limit=3).measure(0, unproven)
    assert none.num_sampled == 0
    assert fewer.outcomes == {f"sums/{n}": wanted(n, 2) for n in (1, 2, 3)}


def test_pieces_fit_the_engine(evaluator: Make, tmp_path: Path) -> None:
    """Prompts have 4 to 9 tokens and completions 8: of 12 to 17 positions, 2 or 3 fit in 40."""
    engine = Sampler()
    evaluator(engine, batch_tokens=40).measure(0, unproven)
    assert max(engine.calls) <= 3 and sum(engine.calls) == 24
    one = Sampler()
    evaluator(one, tmp_path / "one", batch_tokens=1).measure(0, unproven)
    assert one.calls == [1] * 24  # never none
    all_at_once = Sampler()
    evaluator(all_at_once, tmp_path / "all", batch_tokens=24 * 17).measure(0, unproven)
    assert all_at_once.calls == [24]


def test_progress_is_told(evaluator: Make) -> None:
    heard: list[Standing] = []
    record = evaluator(Sampler(), batch_tokens=100, progress=heard.append).measure(0, unproven)
    samples = [standing.num_samples for standing in heard]
    assert samples == sorted(set(samples)) and len(samples) > 2
    assert all(each.num_problems <= each.num_samples // 4 for each in heard)
    assert heard[-1] == Standing(
        name="sums",
        num_samples=24,
        num_samples_wanted=24,
        num_problems=6,
        num_problems_wanted=6,
        accuracy=record.accuracy,
    )


def test_a_damaged_file_of_samples_is_named(evaluator: Make, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/sums.jsonl").write_text('{"step": 0, "problem": 3}\n')
    with pytest.raises(RunFolderError, match=r"sums\.jsonl: damaged line"):
        evaluator(Sampler()).measure(0, unproven)


def test_a_scorer_without_accuracy_is_refused(evaluator: Make, sums: Sums) -> None:
    sums("rlvr_zoo_benchmarks.scorer.score", "sums_data.other_score")
    with pytest.raises(PluginError, match="suite 'sums': its process_results gives no 'accuracy'"):
        evaluator(Sampler()).measure(0, unproven)


def test_a_stop_that_is_asked_for_ends_it_after_a_chunk(evaluator: Make, tmp_path: Path) -> None:
    with pytest.raises(Terminated):
        evaluator(Sampler(), batch_tokens=40, should_stop=lambda: signal.SIGTERM).measure(
            0, unproven
        )
    assert 1 <= len((tmp_path / "samples/sums.jsonl").read_text().splitlines()) <= 3


def test_what_decides_the_samples_is_described(evaluator: Make) -> None:
    plain = evaluator(Sampler()).described
    assert plain["sampling"] == {"temperature": 0.7, "top_p": 0.95, "max_completion_tokens": 8}
    assert (plain["num_samples"], plain["num_problems"], plain["version"]) == (4, 6, "2.0")
    for other in ({"num_samples": 2}, {"temperature": 0.5}, {"limit": 3}):
        assert evaluator(Sampler(), **other).described != plain
    assert evaluator(Sampler(), num_samples=4, temperature=0.7).described == plain


def test_an_engine_that_manages_its_cache_is_not_starved(
    evaluator: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Sampler()
    evaluator(engine, batch_tokens=None).measure(0, unproven)
    assert engine.calls == [24]
    monkeypatch.setattr("rlvr_zoo.evaluate.suite.CHUNK_ROWS", 10)  # what an interruption may cost
    engine = Sampler()
    evaluator(engine, tmp_path / "grains", batch_tokens=None).measure(0, unproven)
    assert engine.calls == [8, 8, 8]
    assert batch_tokens(engine) is None  # type: ignore[arg-type]
