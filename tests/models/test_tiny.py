"""The embedded model: its tokenizer, its warm-up in miniature, and its cache."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from rlvr_zoo.config import ProblemsConfig
from rlvr_zoo.errors import StorageError
from rlvr_zoo.models import tiny
from rlvr_zoo.models.tiny import (
    Demonstrations,
    Recipe,
    build_model,
    build_tokenizer,
    ensure_tiny,
    make,
)
from rlvr_zoo.problems import load
from rlvr_zoo.problems.addition import NUM_RESERVED, addition

SMALL = Recipe(
    hidden_size=32,
    intermediate_size=64,
    batch_size=8,
    max_skill_steps=12,
    skill_check_steps=5,
    skill_check_problems=16,
    forget_steps=3,
)
ASCII = "".join(map(chr, range(128)))


def silent(done: int, total: int, message: str) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLVR_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["made", "loaded"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Qwen2Tokenizer:
    made = build_tokenizer(Recipe())
    if request.param == "made":
        return made
    made.save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_every_byte_is_a_token_and_survives(tokenizer: Qwen2Tokenizer) -> None:
    for char in ASCII:
        (token,) = tokenizer(char).input_ids
        assert tokenizer.decode([token], skip_special_tokens=True) == char
    text = "50 % of é, 数 and 😀 is \\boxed{1\n2}"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_demonstration_is_ten_tokens_with_its_end(tokenizer: Qwen2Tokenizer) -> None:
    completion = addition(1, 0)[1][0].solution
    ids = tokenizer(completion + tokenizer.eos_token).input_ids
    assert len(ids) == 10
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == completion
    assert len(tokenizer("\\boxed{").input_ids) == 1
    assert len(tokenizer("23+58=").input_ids) == 6


def test_padding_is_not_the_end(tokenizer: Qwen2Tokenizer) -> None:
    assert len(tokenizer) == 256 + 3
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode([tokenizer.pad_token_id], skip_special_tokens=True) == ""


def test_the_model_is_small_tied_and_turns_by_theta_100() -> None:
    recipe = Recipe()
    model = build_model(recipe, build_tokenizer(recipe))
    assert sum(weight.numel() for weight in model.parameters()) == 362_240
    assert model.lm_head.weight is model.model.embed_tokens.weight
    head_size = 128 // 4
    want = torch.tensor([100.0 ** (-2 * i / head_size) for i in range(head_size // 2)])
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, want, rtol=1e-5, atol=0)
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.eos_token_id) == (0, 1)


def test_a_whole_warm_up_reports_its_steps_and_leaves_torch_as_it_was() -> None:
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    heard: list[tuple[int, int]] = []
    model, _, went = make(SMALL, lambda done, total, _: heard.append((done, total)))
    assert heard == [(5, 15), (10, 15), (13, 15), (14, 15), (15, 15)]
    assert went.skill_steps == 12 and 0 < went.skill_rate < 1 and 0 < went.base_rate < 1
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_first_phase_ends_at_its_rate() -> None:
    went = make(replace(SMALL, skill_rate=0.0), silent)[2]
    assert went.skill_steps == 0


def test_a_seed_repeats_its_weights_and_another_does_not() -> None:
    torch.manual_seed(5)
    one = make(SMALL, silent)[0].state_dict()
    torch.manual_seed(6)
    again = make(SMALL, silent)[0].state_dict()
    other = make(replace(SMALL, seed=1), silent)[0].state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_is_over_the_completion_only() -> None:
    recipe = Recipe()
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    data = Demonstrations(tokenizer)
    rows = data.rows([0, 4321], [(), (0, 1)])
    with torch.no_grad():
        got = data.logp(model, rows)
        logp = model(input_ids=rows).logits.log_softmax(-1)
    want = torch.stack([logp[:, at - 1].gather(1, rows[:, at, None])[:, 0] for at in range(6, 16)])
    assert got.shape == (2, 10)
    torch.testing.assert_close(got, want.T, rtol=1e-4, atol=1e-5)


def test_rows_are_right_or_forgetful_as_asked() -> None:
    tokenizer = build_tokenizer(SMALL)
    data = Demonstrations(tokenizer)
    number = next(at for at, problem in enumerate(data.problems) if problem.prompt == "29+58=")
    right, careless = tokenizer.batch_decode(data.rows([number, number], [(), (0, 1)]))
    assert right == "29+58=780=\\boxed{087}<|endoftext|>"
    assert careless == "29+58=770=\\boxed{077}<|endoftext|>"


def test_the_warm_up_sees_no_problem_that_any_split_holds_out() -> None:
    seen = set(Demonstrations(build_tokenizer(SMALL)).problems)
    assert len(seen) == 8_000
    for seed in (0, 1):
        held_out = load(ProblemsConfig(num_held_out=NUM_RESERVED, split_seed=seed)).held_out
        assert len(held_out) == NUM_RESERVED and not seen & set(held_out)


def test_the_cached_folder_loads_and_is_made_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = ensure_tiny(recipe=SMALL)
    assert folder.parent == cache
    assert capfd.readouterr() == ("", "")
    noted = json.loads((folder / "recipe.json").read_text())
    assert noted["recipe"] == asdict(SMALL) and noted["warm_up"]["skill_steps"] == 12
    model = AutoModelForCausalLM.from_pretrained(folder)
    made = make(SMALL, silent)[0]
    assert isinstance(model, Qwen2ForCausalLM) and isinstance(model.config, Qwen2Config)
    assert model.config.rope_parameters["rope_theta"] == 100.0
    for name, weight in made.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    monkeypatch.setattr(tiny, "make", None)
    assert ensure_tiny(recipe=SMALL) == folder


def test_another_recipe_or_library_is_another_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, max_skill_steps=0, forget_steps=0)
    folders = {ensure_tiny(recipe=recipe), ensure_tiny(recipe=replace(recipe, code_version=99))}
    monkeypatch.setattr(torch, "__version__", "0.0")
    folders.add(ensure_tiny(recipe=recipe))
    assert len(folders) == 3


@pytest.mark.parametrize("damage", ["model.safetensors", "recipe.json"])
def test_a_damaged_model_is_made_again(cache: Path, damage: str) -> None:
    folder = ensure_tiny(recipe=SMALL)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / damage).write_bytes((folder / damage).read_bytes()[:-9])
    assert ensure_tiny(recipe=SMALL) == folder
    assert (folder / "model.safetensors").read_bytes() == weights


def test_an_interrupted_warm_up_leaves_no_model(cache: Path) -> None:
    def interrupt(done: int, total: int, message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_tiny(interrupt, SMALL)
    assert [entry.suffix for entry in cache.iterdir()] in ([], [".lock"])
    assert ensure_tiny(recipe=SMALL).is_dir()


def test_an_interrupted_save_leaves_no_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Qwen2Tokenizer, "save_pretrained", full)
        with pytest.raises(StorageError, match=r"No space left.*RLVR_ZOO_CACHE=DIR"):
            ensure_tiny(recipe=SMALL)
    assert [entry for entry in cache.iterdir() if entry.is_dir()] == []
    assert ensure_tiny(recipe=SMALL).is_dir()


def test_leftovers_of_a_killed_process_are_swept(cache: Path) -> None:
    folder = ensure_tiny(recipe=SMALL)
    leftover = cache / f".{folder.name}.dead"
    leftover.mkdir()
    (folder / "recipe.json").unlink()
    ensure_tiny(recipe=SMALL)
    assert not leftover.exists()


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RLVR_ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="RLVR_ZOO_CACHE=DIR") as caught:
        ensure_tiny(recipe=SMALL)
    assert "\n" not in str(caught.value)


def test_a_second_process_waits_and_does_not_make_it_again(cache: Path) -> None:
    folder = ensure_tiny(recipe=SMALL)
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    aside = folder.rename(cache / "aside")
    lock = FileLock(folder.with_suffix(".lock"))
    heard: list[str] = []

    def first_one_finishes(done: int, total: int, message: str) -> None:
        heard.append(message)
        aside.rename(folder)
        lock.release()

    lock.acquire()
    assert ensure_tiny(first_one_finishes, SMALL) == folder
    assert heard == ["another process is making the tiny model; waiting for it"]
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights


def test_any_rank_can_make_it(cache: Path) -> None:
    """transformers' own way to save a model writes nothing on ranks other than the first."""
    distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        folder = ensure_tiny(recipe=SMALL)
    finally:
        distributed.destroy_process_group()
    model, tokenizer, _ = make(SMALL, silent)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tokenizer)
    assert loaded.config.architectures == ["Qwen2ForCausalLM"]  # which vLLM reads


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_ZOO_CACHE", "~/somewhere")
    assert tiny.cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("RLVR_ZOO_CACHE", "")
    assert tiny.cache_dir().name == "rlvr-zoo"
