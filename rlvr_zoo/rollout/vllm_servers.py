"""vLLM servers: prompts shared out, weights sent, and each server this run's alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from pydantic import Field
from torch import distributed

from rlvr_zoo.config import VllmConfig
from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.background import gather
from rlvr_zoo.rollout.base import Sampling, Weights
from rlvr_zoo.rollout.completions import Completion, Job, Rules
from rlvr_zoo.rollout.links import Connect, FileLink, Link, NcclLink, rank
from rlvr_zoo.rollout.server_http import Hangup, Refusal, Reply, Server, Unusable

NUM_AT_ONCE = 256
"""Requests to a server at once where neither the settings nor the server say how many."""

R = TypeVar("R", bound=Reply)

# --------------------------------------------------------------------------- what servers say


class _Model(Reply):
    id: str
    parent: str | None = None
    """The model that it is an adapter of."""
    max_model_len: int | None = None


class _Models(Reply):
    data: list[_Model] = Field(min_length=1)


class _Version(Reply):
    version: str


class _ModelConfig(Reply):
    dtype: str | None = None


class _SchedulerConfig(Reply):
    max_num_seqs: int | None = None


class _TransferConfig(Reply):
    backend: str


class _Config(Reply):
    config_of_model: _ModelConfig = Field(alias="model_config")  # pydantic owns the plain name
    scheduler_config: _SchedulerConfig
    weight_transfer_config: _TransferConfig | None


class _Info(Reply):
    vllm_config: _Config


class _WorldSize(Reply):
    world_size: int = Field(ge=1)


class _Reset(Reply):
    success: bool


class _Weights(Reply):
    weight_version: str


class _LogProbs(Reply):
    token_logprobs: list[float]


class _Choice(Reply):
    token_ids: list[int]
    logprobs: _LogProbs
    finish_reason: str | None


class _Completions(Reply):
    choices: list[_Choice] = Field(min_length=1, max_length=1)


class _Found(NamedTuple):
    """What is known of a server."""

    model: str
    version: str
    """Empty where it does not tell."""
    config: _Config | None
    """None where it does not tell."""
    tells_weights: bool
    """True where it can be asked whose weights it has."""

    @property
    def dtype(self) -> torch.dtype | None:
        name = (self.config.config_of_model.dtype or "") if self.config else ""
        found = getattr(torch, name.removeprefix("torch."), None)
        return found if isinstance(found, torch.dtype) else None

    @property
    def max_num_seqs(self) -> int:
        told = self.config.scheduler_config.max_num_seqs if self.config else None
        return told or NUM_AT_ONCE


def _if_told(server: Server, path: str, reply: type[R], hangup: Hangup) -> R | None:
    """None where the server has no such route, or another version's."""
    try:
        return server.get(path, reply, hangup)
    except (Refusal, Unusable):
        return None


def _look(server: Server, max_context_tokens: int, hangup: Hangup) -> _Found:
    """Raises EngineError where it cannot hold the model's context."""
    models = server.get("v1/models", _Models, hangup).data
    base = next((model for model in models if not model.parent), models[0])
    if base.max_model_len is None:
        raise server.unusable(f"/v1/models: {base.id!r} has no max_model_len")
    if base.max_model_len < max_context_tokens:
        raise EngineError(
            f"vLLM server {server.url} takes {base.max_model_len} tokens of prompt and completion,"
            f" and the model {max_context_tokens}; start it with --max-model-len"
            f" {max_context_tokens}, or set model.max_context_tokens={base.max_model_len}"
        )
    version = _if_told(server, "version", _Version, hangup)
    info = _if_told(server, "server_info?config_format=json", _Info, hangup)
    return _Found(
        model=base.id,
        version=version.version if version else "",
        config=info.vllm_config if info else None,
        tells_weights=_if_told(server, "weight_info", _Weights, hangup) is not None,
    )


# --------------------------------------------------------------------------- the host


class Servers:
    """Samples on several servers, each with the whole model."""

    def __init__(
        self,
        model: LoadedModel,
        settings: VllmConfig,
        dtype: torch.dtype,
        connect: Connect | None,
    ) -> None:
        """`connect` is None where weights go as a file.

        Raises EngineError for a server that is down, is none, or cannot hold the model's context,
        ConfigError for settings that do not go with servers.
        """
        if settings.tensor_parallel_size > 1:
            raise ConfigError(
                f"rollout.vllm.tensor_parallel_size={settings.tensor_parallel_size}: is for vLLM in"
                " the trainer's process; leave it at 1, and start servers with"
                " --tensor-parallel-size"
            )
        self._servers = [Server(url, settings.timeout_s) for url in settings.servers]
        self._found = self._look_at_all(model.max_context_tokens)
        self._rules, self._stop_ids = Rules.of(model), sorted(model.eos_ids)
        self._rank = rank()
        num_ranks = distributed.get_world_size() if distributed.is_initialized() else 1
        most = settings.max_num_seqs or min(found.max_num_seqs for found in self._found)
        self._width = max(1, most // num_ranks)
        self._run, self._claim = uuid.uuid4().hex, ""
        dtypes = {found.dtype for found in self._found}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else None
        self.description = self._described()
        self._links: list[Link] = (
            [FileLink(self._servers, settings.folder, dtype)]
            if connect is None
            else [
                NcclLink(server, self._num_workers(number), dtype, connect)
                for number, server in enumerate(self._servers)
            ]
        )

    def _look_at_all(self, max_context_tokens: int) -> list[_Found]:
        hangup, number = Hangup(), len(self._servers)
        found = gather(
            lambda n: _look(self._servers[n], max_context_tokens, hangup),
            [[n] for n in range(number)],
            1,
            hangup.hang_up,
        )
        return [found[n] for n in range(number)]

    def _described(self) -> str:
        versions = sorted({found.version for found in self._found if found.version})
        number = len(self._servers)
        parts = [
            f"vllm {' and '.join(versions)}".strip(),
            str(self.dtype).removeprefix("torch.") if self.dtype else "",
            "1 server" if number == 1 else f"{number} servers",
        ]
        return ", ".join(part for part in parts if part)

    @property
    def versions(self) -> set[str]:
        """Of vLLM, of those servers that tell."""
        return {found.version for found in self._found if found.version}

    def _num_workers(self, number: int) -> int:
        """Raises EngineError where a server was not started for weights by NCCL."""
        server, config = self._servers[number], self._found[number].config
        transfer = config.weight_transfer_config if config else None
        if config is not None and (transfer is None or transfer.backend != "nccl"):
            raise EngineError(
                f"vLLM server {server.url} takes no weights by NCCL; start it with"
                """ --weight-transfer-config '{"backend": "nccl"}' (`rlvr-zoo serve` does, on a"""
                " GPU), or set rollout.vllm.transfer=files"
            )
        return server.get("get_world_size", _WorldSize).world_size

    # ----------------------------------------------------------------- sampling

    def complete(self, jobs: Sequence[Job], sampling: Sampling) -> list[Completion]:
        """One completion a job, in order; jobs of one prompt go to one server, which computes the
        prompt once.  Raises EngineError for the first server that fails."""
        numbers: dict[tuple[int, ...], int] = {}
        lanes: list[list[int]] = [[] for _ in self._servers]
        server_of: list[int] = []
        for number, job in enumerate(jobs):
            place = numbers.setdefault(job.prompt_ids, len(numbers))
            server_of.append((place + self._rank) % len(lanes))
            lanes[server_of[-1]].append(number)
        hangup = Hangup()
        done = gather(
            lambda number: self._complete(server_of[number], jobs[number], sampling, hangup),
            lanes,
            self._width,
            hangup.hang_up,
        )
        self._verify_claims()
        return [done[number] for number in range(len(jobs))]

    def _complete(self, at: int, job: Job, sampling: Sampling, hangup: Hangup) -> Completion:
        server = self._servers[at]
        body = {
            "model": self._found[at].model,
            "prompt": list(job.prompt_ids),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_completion_tokens,
            "seed": job.seed,
            "logprobs": 0,
            "return_token_ids": True,
            "ignore_eos": True,
            "stop_token_ids": self._stop_ids,
            "skip_special_tokens": False,
            # a model's generation_config may say otherwise, and the server would follow it
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        choice = server.post("v1/completions", body, _Completions, hangup).choices[0]
        completion = Completion(
            tuple(choice.token_ids), tuple(choice.logprobs.token_logprobs), choice.finish_reason
        )
        return self._rules.checked(
            completion, sampling.max_completion_tokens, f"vLLM server {server.url}"
        )

    # ----------------------------------------------------------------- weights

    def load(self, weights: Weights, version: int) -> None:
        """Sends the weights to every server; ranks wait until all have them."""
        self._claim_all(f"{self._run}-{version}")  # before sending: of two runs, one will notice
        for link in self._links:
            link.send(weights)
        if self._rank == 0:
            for server in self._servers:
                if not server.post("reset_prefix_cache", None, _Reset).success:
                    raise EngineError(
                        f"vLLM server {server.url} kept its prefix cache at weights {version}: it"
                        " would go on from old ones; is it in use by another? One server serves"
                        " one run at a time"
                    )
        self._verify_claims()
        if distributed.is_initialized():
            distributed.barrier()

    def _claim_all(self, claim: str) -> None:
        self._claim = claim
        for server in self._claimed():
            server.post("update_weight_version", {"new_version": claim})

    def _verify_claims(self) -> None:
        """Raises EngineError where another run has loaded its weights since this one did."""
        for server in self._claimed():
            if server.get("weight_info", _Weights).weight_version != self._claim:
                raise EngineError(
                    f"vLLM server {server.url} was given another run's weights, or was started"
                    " anew: one server serves one run at a time; give each run its own"
                    " (`rlvr-zoo serve`), then go on by the same command (a run: with --resume)"
                )

    def _claimed(self) -> list[Server]:
        """The servers that can say whose weights they have; the first rank asks for all ranks."""
        if self._rank != 0:
            return []
        pairs = zip(self._servers, self._found, strict=True)
        return [server for server, found in pairs if found.tells_weights]

    def rest(self) -> None:
        """Nothing to free: servers have their own devices."""

    def close(self) -> None:
        """Ends the links; servers go on."""
        for link in self._links:
            link.close()
        self._links = []
