"""Everything that a run needs to go on exactly where it was, written whole or not at all.

    checkpoints/step-00000050/
      policy/                 a Hugging Face folder: `--model` takes it
      NAME.safetensors        each companion, and the head
      optimizer.pt            loaded with weights_only
      state.json              position in the data, counters

Sampling and noise are keyed by (run, step, problem, sample), so that there is no random state.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlvr_zoo.errors import RunFolderError, StorageError, first_line
from rlvr_zoo.track.storage import storage, sync_folder
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.sharding import like, put, whole

POLICY = "policy"
_PREFIX, _PARTIAL = "step-", ".partial-"
_LM = "lm."
_DAMAGE = (
    OSError, ValueError, RuntimeError, TypeError, KeyError, EOFError, SafetensorError,
    pickle.UnpicklingError,
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
    bad_steps: int = 0
    """The last optimizer steps that were left out, in a row."""


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, whole, wherever its parts were."""

    models: dict[str, dict[str, Tensor]]
    """Weights by name, of the policy and all that is kept beside it."""
    optimizer: dict[str, Any]


def snapshot(learner: Learner, is_main: bool = True) -> Snapshot:
    """Gathers a learner's tensors; called on every rank, and empty on all but the main one.

    Where models are sharded they are copied to the host's memory.
    """

    def kept(tensor: Tensor) -> Tensor:
        gathered = whole(tensor)
        if gathered is tensor:
            return tensor
        return gathered.cpu() if is_main else tensor.new_empty(0)

    models = {
        name: {key: kept(parameter.detach()) for key, parameter in module.named_parameters()}
        for name, module in learner.modules.items()
    }
    optimizer = learner.optimizer.state_dict()
    moments = {
        number: {k: kept(v) if isinstance(v, Tensor) else v for k, v in state.items()}
        for number, state in optimizer["state"].items()
    }
    return Snapshot(models, {**optimizer, "state": moments})


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
    policy, others = _by_file(parts.models)
    try:
        learner.policy.lm.save_pretrained(partial / POLICY, state_dict=policy)
        tokenizer.save_pretrained(partial / POLICY)
        for name, tensors in others.items():
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


def _by_file(
    models: dict[str, dict[str, Tensor]],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The language model of the policy, which others may load, and what is beside it."""
    others = {name: tensors for name, tensors in models.items() if name != POLICY}
    policy = models[POLICY]
    if head := {name: t for name, t in policy.items() if not name.startswith(_LM)}:
        others["value_head"] = head
    return {n.removeprefix(_LM): t for n, t in policy.items() if n.startswith(_LM)}, others


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file())


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


def load(path: Path, learner: Learner) -> State:
    """Puts a checkpoint's weights and optimizer into the learner, and says where it stood.

    However many ranks wrote it: each of these reads all of it, and keeps its part.  Raises
    RunFolderError for one that does not belong to this run, or is damaged.
    """
    try:
        lm = learner.policy.lm
        saved = type(lm).from_pretrained(path / POLICY, dtype=torch.float32)
        policy = {f"{_LM}{name}": p.detach() for name, p in saved.named_parameters()}
        if learner.policy.value_head is not None:
            policy |= load_file(path / "value_head.safetensors")
        for name, module in learner.modules.items():
            put(module, policy if name == POLICY else load_file(path / f"{name}.safetensors"))
        optimizer = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        _put_moments(learner, optimizer)
        state = State(**json.loads((path / "state.json").read_text()))
    except _DAMAGE as error:
        raise RunFolderError(
            f"{path}: cannot be resumed ({first_line(error)});"
            " remove it to resume the one before it"
        ) from error
    learner.num_optimizer_steps = state.optimizer_steps
    learner.num_bad_steps = state.bad_steps
    return state


def _put_moments(learner: Learner, saved: dict[str, Any]) -> None:
    optimizer = learner.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, state in saved["state"].items():
        parameter = parameters[number]
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = like(value, parameter)
    optimizer.load_state_dict(saved)
