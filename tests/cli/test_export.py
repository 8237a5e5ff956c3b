"""`rlvr-zoo export` on a checkpoint as the trainer writes it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_zoo.config import RunConfig
from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.record import EvaluationRecord, RunRecord
from rlvr_zoo.train import export as exporting

from .conftest import Cli

STEPS = (5, 10)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two checkpoints of two policies."""
    config = asdict(RunConfig(algo="popo", seed=3))
    evaluation = EvaluationRecord(
        step=10, accuracy=0.5, low=0.4, high=0.6, num_problems=16, num_samples=2
    )
    record = RunRecord(
        config=config,
        protocol="micro",
        protocol_digest="d1ge57",
        algorithm="popo",
        seed=3,
        model_revision="c0ffee",
        model_digest="abc",
        evaluations=(evaluation,),
    )
    recipe = Recipe(context_tokens=64)
    tokenizer = build_tokenizer(recipe)
    with RunFolder.create(tmp_path / "run", config) as folder:
        folder.write_record(record)
        for step in STEPS:
            torch.manual_seed(step)
            path = folder.path / f"checkpoints/step-{step:08d}"
            build_model(recipe, tokenizer).save_pretrained(path / "policy")
            tokenizer.save_pretrained(path / "policy")
            (path / "optimizer.pt").touch()
            (path / "state.json").write_text("{}")
    return tmp_path / "run"


def logits(folder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(["23+58="], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return torch.as_tensor(model(ids).logits)


def policy(run: Path, step: int) -> Path:
    return run / f"checkpoints/step-{step:08d}/policy"


def test_the_newest_policy_is_a_plain_folder_with_equal_logits(cli: Cli, run: Path) -> None:
    outcome = cli("export", str(run), "out/model")
    assert outcome.code == 0 and "step 10" in outcome.out
    out = Path("out/model")
    assert torch.equal(logits(out), logits(policy(run, 10)))
    assert not torch.equal(logits(out), logits(policy(run, 5)))
    assert (out / "generation_config.json").is_file()
    assert not list(out.glob("optimizer*")) and not list(Path("out").glob(".*"))
    note = json.loads((out / "rlvr_zoo.json").read_text())
    assert (note["algorithm"], note["seed"], note["step"]) == ("popo", 3, 10)
    assert note["start_model"]["revision"] == "c0ffee"
    assert note["evaluations"][0]["accuracy"] == 0.5
    readme = (out / "README.md").read_text()
    assert "d1ge57" in readme and "| held-out | 16 x 2 | 0.500 | 0.400 to 0.600 |" in readme


def test_in_bf16_and_of_an_earlier_step(cli: Cli, run: Path) -> None:
    assert cli("export", str(run), "out", "--step=5", "--dtype=bf16").code == 0
    model = AutoModelForCausalLM.from_pretrained("out")
    assert model.dtype == torch.bfloat16
    mine, theirs = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
        for path in ("out", policy(run, 5))
    )
    for name, tensor in theirs.items():
        assert torch.equal(mine[name], tensor.bfloat16().float()), name


def test_many_shards_in_and_out(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = logits(policy(run, 10))
    lm = AutoModelForCausalLM.from_pretrained(policy(run, 10))
    (policy(run, 10) / "model.safetensors").unlink()
    lm.save_pretrained(policy(run, 10), max_shard_size="500KB")
    assert len(list(policy(run, 10).glob("*.safetensors"))) > 2
    monkeypatch.setattr(exporting, "_SHARD_BYTES", 300_000)
    assert cli("export", str(run), "out").code == 0
    files = list(Path("out").glob("*.safetensors"))
    assert len(files) > 3 and all(file.stat().st_size < 400_000 for file in files)
    assert torch.equal(logits(Path("out")), want)

    next(policy(run, 10).glob("*00002-of*")).unlink()
    outcome = cli("export", str(run), "other")
    assert outcome.code == 2 and "tensors are missing" in outcome.error
    assert not Path("other").exists() and not Path(".other.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "there"], ["there", "is there already"]),
        (["run", "out", "--step=7"], ["no checkpoint of step 7", "known: 10, 5"]),
        (["run", "out", "--dtype=fp16"], ["--dtype fp16", "fp32"]),
        (["nowhere", "out"], ["nowhere", "holds no run"]),
    ],
)
def test_what_cannot_be_exported(
    cli: Cli, run: Path, arguments: list[str], parts: list[str]
) -> None:
    Path("there").mkdir()
    Path("there/file").touch()
    outcome = cli("export", *arguments)
    assert outcome.code == 2
    for part in parts:
        assert part in outcome.error
    assert not Path("out").exists()


def test_a_policy_that_is_not_finite_is_refused(cli: Cli, run: Path) -> None:
    path = policy(run, 10) / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    outcome = cli("export", str(run), "out")
    assert outcome.code == 2 and "not finite" in outcome.error
    assert not Path("out").exists()
