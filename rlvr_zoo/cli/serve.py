"""`rlvr-zoo serve`: a vLLM server that samples for a trainer and takes its weights."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from rlvr_zoo.cli.run import load_quietly
from rlvr_zoo.config import ModelConfig
from rlvr_zoo.resolve import model_preset


def serve_command(
    model: str, host: str, port: int, dtype: str | None, further: Sequence[str], dry_run: bool
) -> None:
    """Becomes `vllm serve`; `further` are options of vLLM's own.

    Raises NotFoundError for an unknown model, EngineError where vLLM is missing.
    """
    settings = ModelConfig(**model_preset(model)["model"])
    load_quietly(lambda message: None)
    import torch

    from rlvr_zoo.rollout.vllm import require

    require()
    has_gpu = torch.cuda.is_available()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", _path(settings)),
        *("--host", host, "--port", str(port)),
        *("--dtype", dtype or ("bfloat16" if has_gpu else "float32")),
        *("--logprobs-mode", "processed_logprobs"),  # at the sampling temperature
        *("--generation-config", "vllm"),  # no sampling defaults of the model's
        "--enable-prefix-caching",
        "--disable-uvicorn-access-log",  # a line a completion
    ]
    if settings.revision:
        command += ["--revision", settings.revision]
    if settings.max_context_tokens:
        command += ["--max-model-len", str(settings.max_context_tokens)]
    if has_gpu:
        command += ["--weight-transfer-config", '{"backend": "nccl"}']
    command += further
    # the routes for new weights are there in development mode only
    print(f"VLLM_SERVER_DEV_MODE=1 {shlex.join(command)}", flush=True)
    if not dry_run:
        os.execve(command[0], command, {**os.environ, "VLLM_SERVER_DEV_MODE": "1"})


def _path(settings: ModelConfig) -> str:
    from rlvr_zoo.models.tiny import ensure_built_in

    return settings.path or str(ensure_built_in(settings.recipe))
