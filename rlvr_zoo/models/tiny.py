r"""The embedded models `tiny` and `tiny-hard`: addition, known well but usually done carelessly.

It is made on the user's machine in about half a minute, from nothing but code, and cached.  The
warm-up has two phases, both by supervision on problems that are never held out: first right
demonstrations, until the skill is there; then demonstrations of which most forget every carry.
What results answers rightly often enough to be rewarded, and wrongly often enough to improve.

The same recipe on the same machine gives the same bits; other processors may round differently,
so the weights' SHA-256 stands in the folder's `recipe.json`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs
import torch
from filelock import FileLock, Timeout
from torch.nn.functional import cross_entropy

from rlvr_zoo.errors import NotFoundError, StorageError, nearest
from rlvr_zoo.models.save import save_on_any_rank
from rlvr_zoo.problems.addition import careless, warmup_problems

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

Progress = Callable[[int, int, str], None]
"""Called with (steps done, most steps that there can be, what is going on)."""

_PAD, _END, _BOX = "<|pad|>", "<|endoftext|>", r"\boxed{"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number that decides the weights; the cache is keyed by their digest."""

    code_version: int = 1
    """Raised by hand when the code below changes what comes out of it."""
    digits: int = 2
    """Of the operands."""
    seed: int = 0
    """Decides the first weights, the order of problems, and who forgets carries."""
    num_layers: int = 2
    hidden_size: int = 128
    intermediate_size: int = 256
    num_heads: int = 4
    context_tokens: int = 8192
    """Most positions of prompt and completion together; rotary positions cost nothing."""
    initializer_range: float = 0.06
    """Standard deviation of the first weights."""
    rope_theta: float = 100.0
    """Base of the rotary positions; small, as the context is."""
    batch_size: int = 64
    """Demonstrations in one step."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this 2-norm."""
    skill_lr: float = 1.5e-3
    """AdamW's learning rate in the first phase, on right demonstrations."""
    skill_ramp_steps: int = 50
    """Steps in which it climbs from zero."""
    skill_rate: float = 0.8
    """The first phase ends when samples at temperature 1 are this often the demonstration."""
    skill_check_steps: int = 10
    """Steps between two looks at that rate."""
    skill_check_problems: int = 256
    """Problems, drawn from those of the warm-up, on which the rate is measured."""
    max_skill_steps: int = 1500
    """The first phase ends here at the latest."""
    forget_lr: float = 5e-4
    """The second phase's learning rate; a third of the first's, which would unteach the skill."""
    forget_ramp_steps: int = 20
    """Steps in which it climbs from zero."""
    forget_steps: int = 100
    """Steps of the second phase."""
    forgets: Literal["all", "each"] = "all"
    """What is forgotten: by some demonstrations every carry, or any carry by itself."""
    forget_share: float = 0.65
    """Share of its demonstrations that forget every carry: at 0.6 or less, the greedy answer may
    stay the right one; at 0.7, sampling hardly finds the carries any more.  Or share of carries."""


RECIPES = {
    "tiny": Recipe(),
    "tiny-hard": Recipe(digits=4, skill_rate=0.5, forgets="each", forget_share=0.75),
}
"""What `model.recipe` may name."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a warm-up went; a rate is the mean probability of the whole right demonstration."""

    skill_steps: int
    """Steps that the first phase took."""
    skill_rate: float
    """The rate at its end."""
    base_rate: float
    """The rate at the end of the second phase."""


def build_tokenizer(recipe: Recipe) -> Qwen2Tokenizer:
    r"""A tokenizer of bytes: one token a byte, and one each for padding, the end, and `\boxed{`.

    Byte-level in Qwen2's own form, because that form survives `AutoTokenizer.from_pretrained`.
    """
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    symbols = [_PAD, _END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={symbol: index for index, symbol in enumerate(symbols)},
        merges=[],
        pad_token=_PAD,
        eos_token=_END,
        model_max_length=recipe.context_tokens,
    )
    # Not special: `decode(skip_special_tokens=True)` has to keep it for the verifier.
    tokenizer.add_tokens([AddedToken(_BOX, special=False, normalized=False)])
    return tokenizer


def build_model(recipe: Recipe, tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """The untrained model in fp32, its first weights drawn from torch's global generator."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=recipe.context_tokens,
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Qwen2ForCausalLM = Qwen2ForCausalLM(config).float()
    return model


class Demonstrations:
    """Right and forgetful demonstrations of the warm-up's problems, as token ids."""

    def __init__(self, tokenizer: Qwen2Tokenizer, digits: int = 2) -> None:
        self.problems = warmup_problems(digits)
        self._tokenizer = tokenizer
        self._prompt_tokens = len(tokenizer(self.problems[0].prompt).input_ids)

    def rows(self, numbers: Sequence[int], forgotten: Sequence[Sequence[int]]) -> torch.Tensor:
        """Prompt, completion and end of sequence of the numbered problems, each with the places
        whose carries it forgets: int64 (rows, length)."""
        texts = []
        for number, places in zip(numbers, forgotten, strict=True):
            problem = self.problems[number]
            texts.append(problem.prompt + careless(problem.prompt, places) + _END)
        return torch.tensor(self._tokenizer(texts).input_ids)

    def logp(self, model: Qwen2ForCausalLM, ids_NT: torch.Tensor) -> torch.Tensor:
        """Log-probs in nats of the completions' tokens, end included: (rows, tokens)."""
        wanted_NT = ids_NT[:, self._prompt_tokens :]
        logits_NTV = model(
            input_ids=ids_NT[:, :-1], use_cache=False, logits_to_keep=wanted_NT.shape[1]
        ).logits
        return -cross_entropy(logits_NTV.transpose(1, 2), wanted_NT, reduction="none")


class _Learner:
    """A model, its demonstrations and one stream of chance, which both phases draw from."""

    def __init__(self, model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, recipe: Recipe) -> None:
        self.model = model
        self.recipe = recipe
        self.data = Demonstrations(tokenizer, recipe.digits)
        self.draw = random.Random(recipe.seed)
        probes = self.draw.sample(range(len(self.data.problems)), recipe.skill_check_problems)
        self.probe_NT = self.data.rows(probes, [()] * len(probes))

    def steps(self, lr: float, ramp_steps: int, forget_share: float) -> Iterator[None]:
        """Endless optimizer steps, one at each `next`."""
        weights = list(self.model.parameters())
        optimizer = torch.optim.AdamW(
            weights, lr=lr, weight_decay=self.recipe.weight_decay, fused=True
        )
        ramp = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / ramp_steps)
        )
        while True:
            self._loss(forget_share).backward()
            torch.nn.utils.clip_grad_norm_(weights, self.recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            ramp.step()
            yield

    def _loss(self, forget_share: float) -> torch.Tensor:
        """Nats per token of one batch of demonstrations."""
        size = self.recipe.batch_size
        problems = [self.draw.randrange(len(self.data.problems)) for _ in range(size)]
        forgotten = [self._forgotten(forget_share) for _ in range(size)]
        return -self.data.logp(self.model, self.data.rows(problems, forgotten)).mean()

    def _forgotten(self, share: float) -> Sequence[int]:
        """The places whose carries one demonstration forgets."""
        places = range(self.recipe.digits)
        if self.recipe.forgets == "all":
            return places if self.draw.random() < share else ()
        return [place for place in places if self.draw.random() < share]

    def rate(self) -> float:
        """Mean probability, at temperature 1, that a sample is the right demonstration."""
        with torch.no_grad():
            return float(self.data.logp(self.model, self.probe_NT).sum(dim=1).exp().mean())


def warm_up(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, recipe: Recipe, progress: Progress
) -> WarmUp:
    """Trains the model in place, by both phases; it draws no number from torch's generators."""
    learner = _Learner(model, tokenizer, recipe)
    total = recipe.max_skill_steps + recipe.forget_steps
    steps = learner.steps(recipe.skill_lr, recipe.skill_ramp_steps, forget_share=0.0)
    done, skill = 0, learner.rate()
    while done < recipe.max_skill_steps and skill < recipe.skill_rate:
        next(steps)
        done += 1
        if done % recipe.skill_check_steps == 0:
            skill = learner.rate()
            progress(done, total, f"learning to add: {skill:.0%} right")
    skill_steps, total = done, done + recipe.forget_steps
    steps = learner.steps(recipe.forget_lr, recipe.forget_ramp_steps, recipe.forget_share)
    for done in range(skill_steps + 1, total + 1):
        next(steps)
        progress(done, total, "learning to forget carries")
    return WarmUp(skill_steps=skill_steps, skill_rate=skill, base_rate=learner.rate())


def make(recipe: Recipe, progress: Progress) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer, WarmUp]:
    """The warmed-up model, on the CPU; torch's generator and thread count are left as they were.

    One thread, because sums over more threads round differently, and because two threads beside
    another busy process are far slower than one.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(recipe.seed)
            tokenizer = build_tokenizer(recipe)
            model = build_model(recipe, tokenizer)
        return model, tokenizer, warm_up(model, tokenizer, recipe, progress)
    finally:
        torch.set_num_threads(num_threads)


# ------------------------------------------------------------------------------------- the cache


def cache_dir() -> Path:
    """`RLVR_ZOO_CACHE`, else the user's cache folder for this program; it need not exist."""
    return Path(
        os.environ.get("RLVR_ZOO_CACHE") or platformdirs.user_cache_dir("rlvr-zoo")
    ).expanduser()


def ensure_built_in(name: str, progress: Progress | None = None) -> Path:
    """`ensure_tiny` by the recipe's name.  Raises NotFoundError, StorageError."""
    if name not in RECIPES:
        raise NotFoundError(f"model.recipe={name!r}: unknown; {nearest(name, RECIPES)}")
    return ensure_tiny(progress, RECIPES[name])


def ensure_tiny(progress: Progress | None = None, recipe: Recipe | None = None) -> Path:
    """The folder of the warmed-up model, made first where the cache has none that is whole.

    The folder holds the model and its tokenizer in Hugging Face's layout, and `recipe.json`.  Two
    processes do not make it twice, and an interrupted one leaves nothing that looks like a model.

    Raises StorageError where the cache cannot be written.
    """
    recipe = recipe or Recipe()
    report = progress or _silent
    made_from = _made_from(recipe)
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    folder = cache_dir() / f"tiny-{digest[:16]}"
    if _is_whole(folder):
        return folder
    with _lock(folder, report):
        if not _is_whole(folder):
            model, tokenizer, went = make(recipe, report)
            with _storage(folder):
                _store(folder, model, tokenizer, made_from | {"warm_up": asdict(went)})
    return folder


def _silent(done: int, total: int, message: str) -> None:
    """The progress of those who did not ask for any."""


def _made_from(recipe: Recipe) -> dict[str, Any]:
    """Whatever decides the weights on one machine."""
    return {
        "recipe": asdict(recipe),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
    }


def _weights_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _is_whole(folder: Path) -> bool:
    """True where the folder holds the weights that its `recipe.json` speaks of."""
    try:
        noted = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        return bool(noted["weights_sha256"] == _weights_sha256(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot keep the tiny model in {folder.parent} ({error}); make room there, or name a "
            "folder that can be written: RLVR_ZOO_CACHE=DIR"
        ) from error


@contextmanager
def _lock(folder: Path, report: Progress) -> Iterator[None]:
    """Holds the folder's lock; says so when it has to wait for another process."""
    with _storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(0, 1, "another process is making the tiny model; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _store(
    folder: Path, model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, notes: dict[str, Any]
) -> None:
    """Writes beside the folder and renames: it is there whole, or not at all.  Needs the lock."""
    prefix = f".{folder.name}."
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as beside:
        new = Path(beside) / "model"
        with no_progress_bars():
            save_on_any_rank(model, new)
            tokenizer.save_pretrained(new)
        notes = notes | {"weights_sha256": _weights_sha256(new)}
        (new / "recipe.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Loading and saving draw bars on standard error otherwise, however small the model."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
