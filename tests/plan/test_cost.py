"""Tokens and hours, and the sizes of suites."""

from pathlib import Path

import pytest

from rlvr_zoo import registry
from rlvr_zoo.config import SuitesConfig
from rlvr_zoo.plan.cost import cost, forward_passes, step_operations
from rlvr_zoo.plan.devices import parse
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.plan.suites import SuiteSize, sizes
from rlvr_zoo.plan.work import spec_of, work_of

from .test_memory import config


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return load_shape(config("grpo").model)


def operations(shape: ModelShape, algo: str, *settings: str) -> float:
    run = config(algo, *settings)
    return step_operations(run, shape, spec_of(run), work_of(run, shape))


def test_an_update_is_6_operations_a_parameter_and_token(shape: ModelShape) -> None:
    fp32 = (  # no pass but the loss's
        "train.precision=fp32", "algorithm.kl_coef=0", "train.gradient_checkpointing=false",
    )  # fmt: skip
    found = operations(shape, "grpo", *fp32)
    body = 28 * shape.num_layer_parameters
    want = 6 * body * 64 * 1536 + 8 * 152_064 * 3584 * 64 * 1024
    assert found == pytest.approx(want, rel=0.03)  # and attention
    assert found > want
    again = operations(shape, "grpo", *fp32, "train.gradient_checkpointing=true")
    assert again / found == pytest.approx(1.3, abs=0.04)
    assert operations(shape, "grpo", *fp32, "lora.rank=8") < 0.7 * found
    assert operations(shape, "grpo", *fp32, "train.epochs=2") == pytest.approx(2 * found)


def test_passes_without_gradient_are_what_the_declaration_asks_for() -> None:
    def names(algo: str, *settings: str) -> list[str]:
        run = config(algo, *settings)
        return [name for name, _ in forward_passes(run, spec_of(run))]

    assert names("grpo") == ["policy", "reference"]
    assert names("grpo", "train.precision=fp32") == ["reference"]  # the sampler's log-probs serve
    assert names("popo") == ["policy", "siamese"]
    assert names("ppo", "train.precision=fp32") == ["critic"]


def test_tokens_of_the_papers_run(shape: ModelShape) -> None:
    found = cost(config("popo"), shape, parse("h100x8"))
    assert found.generated_tokens == 1500 * 64 * 1024 == found.trained_tokens
    assert found.generated_tokens_most == found.generated_tokens
    dapo = cost(config("dapo"), shape, parse("h100x8"))
    assert dapo.generated_tokens_most == 5 * dapo.generated_tokens  # asks for other groups


def test_more_gpus_and_vllm_are_faster(shape: ModelShape) -> None:
    one = cost(config("popo"), shape, parse("h100"))
    eight = cost(config("popo"), shape, parse("h100x8"))
    assert one.update_hours == pytest.approx(8 * eight.update_hours)
    vllm = cost(config("popo", "rollout.engine=vllm"), shape, parse("h100x8"))
    assert vllm.rollout_hours < 0.5 * eight.rollout_hours
    half = cost(config("popo"), shape, parse("h100"), utilisation=0.2)
    assert half.update_hours == pytest.approx(2 * one.update_hours)


def test_decoding_is_bound_by_memory(shape: ModelShape) -> None:
    settings = ("rollout.engine=vllm", "train.max_steps=1")
    h100 = cost(config("popo", *settings), shape, parse("h100")).rollout_hours
    weights = 1024 * 2 * shape.num_parameters / (3350e9 * 0.6) / 3600
    assert weights < h100 < 2 * weights
    h200 = cost(config("popo", *settings), shape, parse("h200")).rollout_hours
    assert h100 / h200 == pytest.approx(4800 / 3350, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "gpus", "bound"),
    [
        ((), "h100x8", "kernels"),  # 28 layers, 28 ms; 15 GB at 2 TB/s take 8
        (("rollout.engine=vllm",), "h100x8", "memory"),
        ((), "rtx3090x8", "memory"),  # 15 GB at 0.56 TB/s, 27 ms, and the cache
        # 128 rows x 15 GFLOP at 14 TFLOP/s, 137 ms; 30 GB and a cache of 15 take 81
        (("train.precision=fp32", "rollout.rollouts_per_step=128"), "rtx3090", "arithmetic"),
        (("rollout.engine=replay", "rollout.replay=/runs/a"), "h100x8", ""),
    ],
)
def test_what_decides_a_token_s_time(
    settings: tuple[str, ...], gpus: str, bound: str, shape: ModelShape
) -> None:
    assert cost(config("popo", *settings), shape, parse(gpus)).rollout_bound == bound


def test_kernels_take_a_millisecond_a_layer_and_token(shape: ModelShape) -> None:
    found = cost(config("popo", "train.max_steps=100"), shape, parse("h100x8"))
    assert found.rollout_hours == pytest.approx(100 * 1024 * 28 * 1e-3 / 3600, rel=0.01)  # prompts


def test_evaluation_counts_held_out_problems_and_suites(shape: ModelShape) -> None:
    plain = cost(config("popo"), shape, parse("h100x8")).evaluate_hours
    suite = [SuiteSize("aime25", 30, 32, 3072)]
    assert cost(config("popo"), shape, parse("h100x8"), suite).evaluate_hours > plain
    unknown = [SuiteSize("mine", None, 32, 3072)]
    assert cost(config("popo"), shape, parse("h100x8"), unknown).evaluate_hours == plain
    rare = cost(config("popo", "evaluate.every=0"), shape, parse("h100x8")).evaluate_hours
    assert plain == pytest.approx(7 / 2 * rare)  # steps 0, 250, ... 1500


# --------------------------------------------------------------------------- suites


def test_sizes_are_read_without_problems() -> None:
    found = sizes(SuitesConfig(names=["math500", "aime25"]))
    assert found == [SuiteSize("math500", 500, 4, 3072), SuiteSize("aime25", 30, 32, 3072)]


def test_groups_are_opened_once() -> None:
    found = [suite.name for suite in sizes(SuitesConfig(names=["aime25", "rlvr_math"]))]
    assert found[0] == "aime25" and len(found) == len(set(found)) == 7


def test_settings_win() -> None:
    (found,) = sizes(SuitesConfig(names=["aime25"], num_samples=8, limit=5))
    assert (found.num_problems, found.num_samples) == (5, 8)
    (greedy,) = sizes(SuitesConfig(names=["aime25"], temperature=0.0, max_completion_tokens=99))
    assert (greedy.num_samples, greedy.completion_tokens) == (1, 99)


def test_a_strangers_suite_may_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\nrepeats: 3\nprocess_results: !function a.b\n")
    monkeypatch.setattr(registry, "load", lambda group, name: tmp_path)
    (found,) = sizes(SuitesConfig(names=["mine"]))
    assert found == SuiteSize("mine", None, 1, 256)  # greedy, as lm-eval's tasks are by default
