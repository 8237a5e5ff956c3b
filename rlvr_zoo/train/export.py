"""A checkpoint's policy as a plain Hugging Face folder, with a note of where it came from.

Tensors go from file to file, one shard in memory at a time.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlvr_zoo.errors import NotFoundError, RunFolderError, first_line, nearest
from rlvr_zoo.track import provenance
from rlvr_zoo.track.reader import CHECKPOINTS, RunReader
from rlvr_zoo.track.record import RunRecord
from rlvr_zoo.track.storage import storage, sync_folder

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SHARD_BYTES = 5 * 10**9
"""Files no larger than this, so that a reader needs no more at once."""
_INDEX = "model.safetensors.index.json"
_NOTE = "rlvr_zoo.json"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    step: int
    num_parameters: int
    dtype: str


def export(run: Path, folder: Path, step: int | None, dtype: str) -> Exported:
    """Writes the policy after `step`, or of the newest checkpoint, to a folder that is made here.

    Raises RunFolderError for a run without that checkpoint, one that is damaged, or a folder that
    is there already; StorageError where the disk refuses.
    """
    record = RunReader(run).record()
    checkpoint = _checkpoint(run, step)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder}: is there already; name a folder that is not")
    partial = folder.with_name(f".{folder.name}.partial")
    with storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            done = _write(checkpoint, partial, record, dtype)
            sync_folder(partial)
            partial.replace(folder)
        except (SafetensorError, ValueError, KeyError) as error:
            raise RunFolderError(
                f"{checkpoint}: its policy is damaged ({first_line(error)}); export another --step"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(folder.parent)
    return done


def _checkpoint(run: Path, step: int | None) -> Path:
    whole = {
        int(path.parent.name.rpartition("-")[2]): path.parent
        for path in sorted((run / CHECKPOINTS).glob("step-*/state.json"))
    }
    if not whole:
        raise RunFolderError(f"{run}: has no checkpoint yet; it makes one every checkpoint.every")
    if step is None:
        return whole[max(whole)]
    if step not in whole:
        steps = nearest("", (str(each) for each in whole))
        raise NotFoundError(f"{run}: no checkpoint of step {step} is kept; {steps}")
    return whole[step]


def _write(checkpoint: Path, folder: Path, record: RunRecord, dtype: str) -> Exported:
    source, step = checkpoint / "policy", int(checkpoint.name.rpartition("-")[2])
    num_parameters = _write_weights(source, folder, _DTYPES[dtype])
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.name != _INDEX:
            shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("torch_dtype", None)  # what transformers before 5 wrote
    _set_dtype(config, str(_DTYPES[dtype]).removeprefix("torch."))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    note = _provenance(record, step, dtype)
    (folder / _NOTE).write_text(json.dumps(note, indent=1) + "\n")
    (folder / "README.md").write_text(_readme(record, note))
    return Exported(step=step, num_parameters=num_parameters, dtype=dtype)


# --------------------------------------------------------------------------- weights


def _write_weights(source: Path, folder: Path, dtype: torch.dtype) -> int:
    """Converts every shard; returns the number of parameters.  Raises ValueError."""
    where = _where(source)
    shards = list(_shards(where, dtype.itemsize))
    names = [_shard_name(number, len(shards)) for number in range(len(shards))]
    total = 0
    for name, shard in zip(names, shards, strict=True):
        tensors = {key: _converted(where[key], key, dtype) for key in shard}
        total += sum(tensor.numel() for tensor in tensors.values())
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": total * dtype.itemsize, "total_parameters": total},
            "weight_map": {
                key: name for name, shard in zip(names, shards, strict=True) for key in shard
            },
        }
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return total


def _where(source: Path) -> dict[str, Path]:
    """The file that each tensor is in.  Raises ValueError where one of them is missing."""
    found: dict[str, Path] = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    if (source / _INDEX).is_file():
        wanted = json.loads((source / _INDEX).read_text())["weight_map"]
        if missing := sorted(set(wanted) - set(found)):
            raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} among them")
    if not found:
        raise ValueError("no weights in it")
    return found


def _shards(where: Mapping[str, Path], itemsize: int) -> Iterator[Sequence[str]]:
    """Names of tensors, file by file, in shares of at most _SHARD_BYTES."""
    shard: list[str] = []
    num_bytes = 0
    for key, path in where.items():
        with safe_open(path, framework="pt") as file:
            size = math.prod(file.get_slice(key).get_shape()) * itemsize
        if shard and num_bytes + size > _SHARD_BYTES:
            yield shard
            shard, num_bytes = [], 0
        shard.append(key)
        num_bytes += size
    yield shard


def _shard_name(number: int, of: int) -> str:
    return f"model-{number + 1:05d}-of-{of:05d}.safetensors" if of > 1 else "model.safetensors"


def _converted(path: Path, key: str, dtype: torch.dtype) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(key)
    if not tensor.is_floating_point():
        return tensor
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{key} holds numbers that are not finite")
    return tensor.to(dtype)


def _set_dtype(config: dict[str, Any], name: str) -> None:
    """In the configuration, and in those of its parts."""
    config["dtype"] = name
    for part in config.values():
        if isinstance(part, dict) and "dtype" in part:
            _set_dtype(part, name)


# --------------------------------------------------------------------------- where it came from


def _provenance(record: RunRecord, step: int, dtype: str) -> dict[str, Any]:
    model = record.config["model"]
    return {
        "algorithm": record.algorithm,
        "algorithm_settings": record.config["algorithm"],
        "protocol": record.protocol,
        "protocol_digest": record.protocol_digest,
        "seed": record.seed,
        "step": step,
        "dtype": dtype,
        "start_model": {
            "name": model["name"],
            "path": model["path"],
            "revision": record.model_revision,
            "digest": record.model_digest,
        },
        "prompt": {key: model[key] for key in ("prompt", "chat", "system")},
        "problems": {"source": record.problems_source, "digest": record.problems_digest},
        "trained_by": {"code": asdict(record.code), "versions": dict(record.versions)},
        "exported_by": provenance.versions().get("rlvr-zoo", ""),
        "evaluations": [
            {
                "name": each.name,
                "num_problems": each.num_problems,
                "num_samples": each.num_samples,
                "accuracy": each.accuracy,
                "low": each.low,
                "high": each.high,
            }
            for each in record.evaluations
            if each.step == step
        ],
    }


def _readme(record: RunRecord, note: Mapping[str, Any]) -> str:
    model = record.config["model"]
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if model["path"] and "/" in model["path"] and not Path(model["path"]).is_absolute():
        head.append(f"base_model: {model['path']}")
    scores = [
        f"| {each['name']} | {each['num_problems']} x {each['num_samples']}"
        f" | {each['accuracy']:.3f} | {each['low']:.3f} to {each['high']:.3f} |"
        for each in note["evaluations"]
    ]
    table = [
        "| problems | number x samples | accuracy | 95 % interval |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join(
        [
            *head,
            "tags: [rlvr, rlvr-zoo]",
            "---",
            f"# {model['name']}, trained by {record.algorithm}",
            f"After {note['step']} steps under the protocol `{record.protocol}`"
            f" ({record.protocol_digest}), seed {record.seed}, by rlvr-zoo; weights in"
            f" {note['dtype']}. `{_NOTE}` says what it started from, how it is prompted, and which"
            " code and packages trained it.",
            "",
            *([*table, *scores] if scores else ["It was not evaluated at this step."]),
            "",
        ]
    )
