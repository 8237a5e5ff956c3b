"""A suite of sums in a folder, and a model that is sure to know some of them."""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from rlvr_zoo import registry
from rlvr_zoo.api import Rollout
from rlvr_zoo.config import ModelConfig, RolloutConfig, SuitesConfig, VerifyConfig
from rlvr_zoo.evaluate.base import Progress
from rlvr_zoo.evaluate.proof import Proof
from rlvr_zoo.evaluate.suite import Bench, SuiteEvaluator
from rlvr_zoo.evaluate.suites import load, settle
from rlvr_zoo.models.load import LoadedModel, PromptTemplate
from rlvr_zoo.models.load import load as load_model
from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer
from rlvr_zoo.rollout.base import Request, Sampling
from rlvr_zoo.verify.math import MathVerifier

T = TypeVar("T")

YAML = r"""
task: sums
custom_dataset: !function sums_data.load
test_split: test
output_type: generate_until
num_fewshot: 0
doc_to_text: "{{problem}}"
doc_to_target: "{{answer}}"
generation_kwargs: {do_sample: true, temperature: 0.7, top_p: 0.95, max_gen_toks: 8, until: []}
repeats: 4
filter_list:
  - name: samples
    filter:
      - function: custom
        filter_fn: !function rlvr_zoo_benchmarks.scorer.keep_all
process_results: !function rlvr_zoo_benchmarks.scorer.score
metric_list:
  - {metric: accuracy, aggregation: mean, higher_is_better: true}
metadata: {version: 2.0}
"""
DATA = """
from datasets import Dataset

def load(**metadata):
    rows = [
        {"id": f"sums/{n}", "problem": "1" * n + "+1=", "answer": str(n), "tolerance": 0.0}
        for n in range(1, 7)
    ]
    return {"test": Dataset.from_list(rows)}

def bare(**metadata):
    return {"test": Dataset.from_list([{"problem": "7", "answer": "7"}])}

def foreign(**metadata):
    return {"test": Dataset.from_list([{"question": "7", "answer": "7"}])}

def other_score(doc, results):
    return {"goodness": 1.0}
"""
TASKS: Path
"""Where the entry point of the test finds the folder."""


Sums = Callable[..., None]


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sums:
    """A registered suite `sums`; called, it writes the YAML file anew, texts replaced."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "sums_data.py").write_text(DATA)
    monkeypatch.setitem(globals(), "TASKS", folder)
    entry = EntryPoint(name="sums", value=f"{__name__}:TASKS", group=registry.SUITES)
    monkeypatch.setattr(registry, "owners", lambda group: {"sums": [entry]})

    def write(*replaced: str) -> None:
        text = YAML
        for old, new in zip(replaced[::2], replaced[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        (folder / "sums.yaml").write_text(text)

    write()
    return write


class Sampler:
    """Answers by the seed: every third sample is wrong.  Counts, and can give out."""

    exact = True
    follows = True

    def __init__(self, patience: int = 1_000_000) -> None:
        self.num_sampled, self.patience = 0, patience
        self.tokenizer = build_tokenizer(Recipe())
        self.calls: list[int] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        self.calls.append(sum(len(request.seeds) for request in requests))
        self.num_sampled += self.calls[-1]
        if self.num_sampled > self.patience:
            raise KeyboardInterrupt
        return [[self._rollout(request, seed) for seed in request.seeds] for request in requests]

    def _rollout(self, request: Request, seed: int) -> Rollout:
        ones = self.tokenizer.decode(request.prompt_ids).count("1") - 1
        text = rf"\boxed{{{ones + (seed % 3 == 0)}}}"
        return Rollout(ids=(1,) * ones, logp=(0.0,) * ones, text=text, truncated=seed % 2 == 0)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The tiny architecture with random weights; not to be changed."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(Recipe())
    build_model(Recipe(), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_model(ModelConfig(name="random", path=str(folder)))


class Alone:
    """One process."""

    is_main = True
    world_size = 1

    def shard(self, items: Sequence[T]) -> list[T]:
        return list(items)

    def unshard(self, mine: Sequence[T]) -> list[T]:
        return list(mine)

    def broadcast(self, value: T) -> T:
        return value


def unproven(engine: Any, sampling: Sampling) -> Proof:
    """For engines that run the policy itself."""
    return Proof(lambda probes, temperature: [], RolloutConfig(), torch.float32, Alone(), engine,
                 sampling)  # fmt: skip


Make = Callable[..., SuiteEvaluator]


@pytest.fixture
def evaluator(sums: Sums, tmp_path: Path) -> Iterator[Make]:
    """Makes an evaluator of the suite `sums` on a `Sampler`."""
    verifier = MathVerifier(VerifyConfig())
    tokenizer = build_tokenizer(Recipe())

    def make(
        engine: Sampler,
        folder: Path = tmp_path / "samples",
        batch_tokens: int | None = 1000,
        progress: Progress = lambda standing: None,
        should_stop: Callable[[], int] = lambda: 0,
        **settings: Any,
    ) -> SuiteEvaluator:
        config = SuitesConfig(names=["sums"], **settings)
        bench = Bench(
            engine=engine,
            verifier=verifier,
            template=PromptTemplate(ModelConfig(prompt="{problem}"), tokenizer),
            max_context_tokens=64,
            batch_tokens=batch_tokens,
            ranks=Alone(),
            seed=5,
            progress=progress,
            warn=lambda message: None,
            should_stop=should_stop,
        )
        suite = settle(load(["sums"])[0], config)
        return SuiteEvaluator(suite, bench, config.max_completion_tokens, lambda step: folder)

    with verifier:
        yield make
