"""Everything that a run needs to go on exactly where it was, written whole or not at all.

    checkpoints/step-00000050/
      policy/                 a Hugging Face folder: `--model` takes it
      NAME.safetensors        each companion, the head, and what `policy` leaves out
      optimizer.pt            loaded with weights_only
      state.json              position in the data, counters

Sampling and noise are keyed by (run, step, problem, sample), so that there is no random state.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlvr_zoo.errors import RunFolderError, StorageError, first_line
from rlvr_zoo.plan.checkpoints import Contents
from rlvr_zoo.track.storage import storage, sync_folder
from rlvr_zoo.train.adapters import adapter_parameters, has_adapters, merged, own
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.optimizer import load_state, state_of
from rlvr_zoo.train.sharding import put, shape_of, whole

POLICY = "policy"
_PREFIX, _PARTIAL = "step-", ".partial-"
_LM = "lm."
_DAMAGE = (
    OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, EOFError,
    SafetensorError, pickle.UnpicklingError,
)  # fmt: skip
"""What the loaders raise for files that are missing, cut, or not what they should be."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands."""

    step: int = 0
    """Rollout batches trained on."""
    position: int = 0
    """Problems drawn."""
    optimizer_steps: int = 0
    generated_tokens: int = 0
    """Completion tokens sampled for training."""
    bad_steps: int = 0
    """The last optimizer steps that were left out, in a row."""


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, whole, wherever its parts were."""

    policy: dict[str, Tensor]
    """The language model, adapters merged in, by Hugging Face's names."""
    files: dict[str, dict[str, Tensor]]
    """What is beside it, by file: companions, the head, and what `policy` does not say of the
    policy (its value head, its adapters)."""
    optimizer: dict[str, Any]


@torch.no_grad()
def snapshot(learner: Learner, is_main: bool = True) -> Snapshot:
    """Gathers a learner's tensors; called on every rank, and empty on all but the main one.

    What is on a GPU is copied to the host's memory, tensor by tensor.
    """

    def kept(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        found = {}
        for name, tensor in named:
            gathered = whole(tensor).detach()
            if is_main:
                found[name] = gathered.cpu()
        return found

    policy = kept(merged(learner.policy.lm))
    files = {name: kept(parameters.items()) for name, parameters in _files(learner).items()}
    return Snapshot(policy, files, state_of(learner.optimizer, keep=is_main))


def _files(learner: Learner) -> dict[str, dict[str, nn.Parameter]]:
    """What a checkpoint holds besides the folder `policy`."""
    files = {name: own(module) for name, module in learner.modules.items() if name != POLICY}
    policy = own(learner.policy)
    if not has_adapters(learner.policy):
        policy = {name: p for name, p in policy.items() if not name.startswith(_LM)}
    return files | ({f"{POLICY}_extra": policy} if policy else {})


def contents(learner: Learner) -> Contents:
    """How much a learner's checkpoint holds; nothing is gathered."""

    def number(parameters: Iterable[Tensor]) -> int:
        return sum(shape_of(parameter).numel() for parameter in parameters)

    lm = learner.policy.lm
    return Contents(
        policy=number(lm.parameters()) - number(adapter_parameters(lm)),
        beside=sum(number(parameters.values()) for parameters in _files(learner).values()),
        trained=number(learner.parameters),
    )


def save(
    folder: Path, learner: Learner, parts: Snapshot, tokenizer: Any, state: State, keep: int
) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`; called on the main rank.

    It appears under its name only when it is on the disk, whole.  Raises StorageError where the
    disk refuses; the checkpoints before it then stand.
    """
    path = folder / f"{_PREFIX}{state.step:08d}"
    partial = folder / f"{_PARTIAL}{path.name}"
    with storage(folder):
        folder.mkdir(exist_ok=True)
        _remove_partial(folder)
        try:
            _write(partial, learner, parts, tokenizer, state)
            if path.exists():  # the same step, saved before an interruption
                shutil.rmtree(path)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder)
        for old in _complete(folder)[:-keep]:
            hidden = folder / f"{_PARTIAL}{old.name}"
            old.rename(hidden)  # so that a kill in the middle leaves nothing that looks whole
            shutil.rmtree(hidden)
    return path


def _write(partial: Path, learner: Learner, parts: Snapshot, tokenizer: Any, state: State) -> None:
    partial.mkdir()
    try:
        learner.policy.lm.save_pretrained(partial / POLICY, state_dict=parts.policy)
        tokenizer.save_pretrained(partial / POLICY)
        for name, tensors in parts.files.items():
            save_file(tensors, partial / f"{name}.safetensors")
        torch.save(parts.optimizer, partial / "optimizer.pt")
    except (SafetensorError, RuntimeError) as error:  # what they make of the disk's refusal
        raise StorageError(
            f"{partial.parent}: the checkpoint of step {state.step} cannot be written"
            f" ({first_line(error)}); make room there, then go on with --resume"
        ) from error
    (partial / "state.json").write_text(json.dumps(asdict(state)))
    for path in (*partial.rglob("*"), partial):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if is_whole(path))


def is_whole(path: Path) -> bool:
    """Does this process see a checkpoint there?"""
    return (path / "state.json").is_file()


def _remove_partial(folder: Path) -> None:
    for partial in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(partial)


def tidy(folder: Path) -> None:
    """Removes what a kill left half written."""
    with storage(folder):
        _remove_partial(folder)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint; None where there is none."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def number_in(folder: Path) -> int:
    """How many whole ones are there."""
    return len(_complete(folder))


def load(path: Path, learner: Learner) -> State:
    """Puts a checkpoint's weights and optimizer into the learner, and says where it stood.

    However many ranks wrote it: each of these reads all of it, and keeps its part.  Raises
    RunFolderError for one that does not belong to this run, or is damaged.
    """
    try:
        lm = learner.policy.lm
        if not has_adapters(lm):  # else it is the start model's, which they are beside
            saved = type(lm).from_pretrained(path / POLICY, dtype=torch.float32)
            put(dict(saved.named_parameters()), dict(lm.named_parameters()))
            del saved
        for name, parameters in _files(learner).items():
            put(load_file(path / f"{name}.safetensors"), parameters)
        optimizer = torch.load(
            path / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True
        )
        load_state(learner.optimizer, optimizer)
        state = State(**json.loads((path / "state.json").read_text()))
    except _DAMAGE as error:
        raise RunFolderError(
            f"{path}: cannot be resumed ({first_line(error)});"
            " remove it to resume the one before it"
        ) from error
    learner.num_optimizer_steps = state.optimizer_steps
    learner.num_bad_steps = state.bad_steps
    return state
