"""The engine that samples by vLLM; the only file that imports it.

Colocated, vLLM runs in the trainer's process: weights are handed over in memory, and where the
platform can, it sleeps while the trainer updates.  With `rollout.vllm.servers` the work goes to
vLLM servers (`vllm_servers.py`).
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, distributed

from rlvr_zoo.api import Rollout
from rlvr_zoo.config import RolloutConfig, VllmConfig
from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import PLAIN, Compute, Request, Sampling, Weights
from rlvr_zoo.rollout.vllm_servers import Completion, Job, Server, Servers, rank

SUPPORTED = "0.32 to 0.33"
"""Versions whose interface this file speaks; another one warns."""
TESTED = ("0.32.0",)
"""Versions that the tests were run with."""
MAX_TEMPERATURE = 2.0
"""vLLM refuses more."""
INSTALL = "pip install 'rlvr-zoo[vllm]' (Linux, Python 3.11 or 3.12, a GPU)"


def installed() -> str:
    """The version of vLLM that is installed, whoever built it; empty where none is."""
    owners = metadata.packages_distributions().get("vllm", ()) if find_spec("vllm") else ()
    return metadata.version(owners[0]) if owners else ""


def is_supported(found: str) -> bool:
    return re.match(r"0\.(32|33)\b", found) is not None


class _Host(Protocol):
    """Where vLLM runs."""

    def complete(self, jobs: Sequence[Job], sampling: Sampling) -> list[Completion]: ...
    def load(self, weights: Weights, version: int) -> None: ...
    def rest(self) -> None: ...
    def close(self) -> None: ...


class VllmEngine:
    """Sampling by vLLM, every completion from its own seed.

    Sampling log-probs are at the sampling temperature; under top-p, of what top-p has left.
    """

    exact = False
    follows = True

    def __init__(self, model: LoadedModel, config: RolloutConfig, compute: Compute = PLAIN) -> None:
        """Raises EngineError where vLLM is missing or a server is down, ConfigError where the
        settings do not fit the ranks.
        """
        settings = config.vllm
        nccl = settings.transfer == "nccl" or (
            settings.transfer == "auto" and torch.cuda.is_available()
        )
        if nccl or not settings.servers:
            require()
        self._tokenizer, self._eos_ids = model.tokenizer, model.eos_ids
        self._has_weights = False
        given = {"auto": compute.dtype, "float32": torch.float32, "bfloat16": torch.bfloat16}
        dtype = given[settings.dtype]
        self._host: _Host = (
            Servers(model, settings, dtype, NcclLink if nccl else None)
            if settings.servers
            else Colocated(model, settings, dtype)
        )

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        """For each request one rollout a seed, in order."""
        assert self._has_weights, "no sync since the start, or since the last rest"
        if sampling.temperature > MAX_TEMPERATURE:
            raise ConfigError(
                f"temperature {sampling.temperature}: vLLM takes {MAX_TEMPERATURE} at most; set"
                " that or less, or rollout.engine=transformers"
            )
        jobs = [Job(r.prompt_ids, seed) for r in requests for seed in r.seeds]
        completions = self._host.complete(jobs, sampling)
        texts = self._tokenizer.batch_decode(
            [list(completion.ids) for completion in completions], skip_special_tokens=True
        )
        rows = iter(zip(completions, texts, strict=True))
        return [
            [
                Rollout(
                    ids=completion.ids,
                    logp=completion.logp,
                    text=text,
                    truncated=completion.ids[-1] not in self._eos_ids,
                )
                for completion, text in (next(rows) for _ in request.seeds)
            ]
            for request in requests
        ]

    def sync(self, weights: Weights, version: int) -> None:
        """Samples from these weights from now on."""
        self._host.load(weights, version)
        self._has_weights = True

    def rest(self) -> None:
        """Sleeps, where vLLM shares the trainer's GPUs."""
        self._has_weights = False
        self._host.rest()

    def close(self) -> None:
        """Ends vLLM in this process; servers go on."""
        self._host.close()


def require() -> None:
    """Raises EngineError where vLLM is missing; warns of a version that is not supported."""
    found = installed()
    if not found:
        raise EngineError(
            f"vLLM is not installed, which rollout.engine=vllm wants; {INSTALL}, or set"
            " rollout.engine=transformers"
        )
    if not is_supported(found):
        warnings.warn(
            f"vLLM {found} is not among the supported versions, {SUPPORTED}"
            f" (tested: {', '.join(TESTED)})",
            stacklevel=3,
        )


# --------------------------------------------------------------------------- in this process

_KEPT: list[Any] = []
"""Engines that must not be collected before the process ends."""


class Colocated:
    """vLLM in the trainer's process, one engine a rank.

    Several ranks share a model by tensor parallelism; each such group samples the prompts of all
    its ranks.  Tested on CPU; sleep and tensor parallelism on GPUs are not.
    """

    def __init__(self, model: LoadedModel, settings: VllmConfig, dtype: torch.dtype) -> None:
        self._owns_ranks = not distributed.is_initialized()
        ranks = 1 if self._owns_ranks else distributed.get_world_size()
        width = settings.tensor_parallel_size
        if ranks % width:
            raise ConfigError(
                f"rollout.vllm.tensor_parallel_size={width}: the trainer has {ranks} ranks to share"
                " a model among; set a divisor of that"
            )
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights come from this very process
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of vLLM's own use of torch
            from vllm.platforms import current_platform

        self._can_sleep, self._asleep = bool(current_platform.is_sleep_mode_available()), False
        with tempfile.TemporaryDirectory() as folder:
            model.lm.config.save_pretrained(folder)
            self._llm = _started(
                model=folder,
                load_format="dummy",  # the first sync brings the weights
                skip_tokenizer_init=True,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=model.max_context_tokens,
                max_num_seqs=settings.max_num_seqs,
                gpu_memory_utilization=settings.gpu_memory_share,
                tensor_parallel_size=width,
                distributed_executor_backend=None if ranks == 1 else "external_launcher",
                enforce_eager=settings.enforce_eager,
                enable_prefix_caching=True,
                enable_sleep_mode=self._can_sleep,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                disable_log_stats=True,
            )
        self._stop_ids = sorted(model.eos_ids)
        self._team = _team(ranks, width)
        self.rest()

    def complete(self, jobs: Sequence[Job], sampling: Sampling) -> list[Completion]:
        """One completion a job, in order."""
        from vllm import SamplingParams, TokensPrompt

        together, first = _joined(jobs, self._team)
        if not together:
            return []
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=list(job.prompt_ids)) for job in together],
            [
                SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_completion_tokens,
                    seed=job.seed,
                    logprobs=0,  # of the sampled token alone
                    ignore_eos=True,  # vLLM knows one end token at most; these are all of them
                    stop_token_ids=self._stop_ids,
                    detokenize=False,
                )
                for job in together
            ],
            use_tqdm=False,
        )
        mine = outputs[first : first + len(jobs)]
        return [_completion(output.outputs[0]) for output in mine]

    def load(self, weights: Weights, version: int) -> None:
        """Takes the weights over from memory, waking up where it sleeps."""
        self._wake("weights")  # the cache would take the room that loading needs
        pairs = ((name, tensor.detach()) for name, tensor in weights())
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": pairs})
        self._wake("kv_cache")
        self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise EngineError(
                f"vLLM kept its prefix cache at weights {version}: it would go on from old ones"
            )

    def _wake(self, part: str) -> None:
        if self._asleep:
            self._llm.wake_up(tags=[part])

    def rest(self) -> None:
        """Gives back the memory of weights and cache."""
        if self._can_sleep and not self._asleep:
            self._llm.sleep(level=2)
            self._asleep = True

    def close(self) -> None:
        """Ends vLLM; among several ranks it sleeps until the process ends, as its own end would
        take the trainer's process group along."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if self._owns_ranks:
            llm.llm_engine.engine_core.shutdown()
            return
        if self._can_sleep and not self._asleep:
            llm.sleep(level=2)
        _KEPT.append(llm)


def _started(**options: Any) -> Any:
    """Raises EngineError where vLLM cannot start."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from vllm import LLM

            return LLM(**options)
    except (ValueError, RuntimeError) as error:  # too little memory, an architecture it lacks ...
        said = " ".join(str(error).split())  # pydantic's has the reason in its third line
        raise EngineError(
            f"vLLM does not start: {said[:400]}; set rollout.vllm otherwise, or"
            " rollout.engine=transformers"
        ) from error


def _completion(output: Any) -> Completion:
    ids = tuple(output.token_ids)
    logps = [at[token].logprob for at, token in zip(output.logprobs, ids, strict=True)]
    return Completion(ids, tuple(logps))


def _team(num_ranks: int, width: int) -> distributed.ProcessGroup | None:
    """The ranks that hold one model together; None where each holds its own."""
    if width == 1:
        return None
    teams = [list(range(first, first + width)) for first in range(0, num_ranks, width)]
    mine: distributed.ProcessGroup
    mine, _ = distributed.new_subgroups_by_enumeration(teams, backend="gloo")
    return mine


def _joined(
    jobs: Sequence[Job], team: distributed.ProcessGroup | None
) -> tuple[Sequence[Job], int]:
    """The jobs of all ranks of a team, and where this rank's begin."""
    if team is None:
        return jobs, 0
    shares: list[Any] = [None] * distributed.get_world_size(team)
    distributed.all_gather_object(shares, list(jobs), group=team)
    before = shares[: distributed.get_rank(team)]
    return [job for share in shares for job in share], sum(len(share) for share in before)


# --------------------------------------------------------------------------- to servers, by NCCL


class _Meta(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class _Source:
    """The weights as vLLM's trainer-side engine goes through them."""

    def __init__(self, weights: Weights, dtype: torch.dtype) -> None:
        self.weights, self._dtype = weights, dtype
        self._metadata = [_Meta(n, t.dtype, tuple(t.shape)) for n, t in self]

    def metadata(self) -> list[_Meta]:
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.weights():
            yield name, tensor.detach().to(self._dtype)


class NcclLink:
    """Weights from the trainer's first rank to the workers of one server, by vLLM's own
    weight-transfer engine.  Needs GPUs on both sides, and has not been run on any."""

    def __init__(self, url: str, num_workers: int, dtype: torch.dtype) -> None:
        self._url, self._num_workers, self._dtype = url, num_workers, dtype
        self._source: _Source | None = None
        self._sender: Any = None

    def send(self, weights: Weights, version: int) -> None:
        """Raises EngineError where the server does not answer."""
        first = self._source is None
        if self._source is None:
            self._source = _Source(weights, self._dtype)
        self._source.weights = weights
        if rank() != 0:
            for _ in self._source:  # takes part in gathering them
                pass
            return
        try:
            if first:
                self._sender = self._connected(self._source)
            self._sender.send_weights()
        except OSError as error:  # requests' errors are
            raise Server(self._url, 0).down(error) from error

    def _connected(self, source: _Source) -> Any:
        from vllm.distributed.weight_transfer.clients import HTTPVLLMWeightSyncClient
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
        from vllm.utils.network_utils import get_ip, get_open_port

        client = HTTPVLLMWeightSyncClient(self._url)
        client.shutdown_weight_transfer_engine()  # a trainer that died may have left a connection
        return WeightTransferTrainerFactory.trainer_init(
            NCCLTrainerInitInfo(
                master_address=get_ip(),
                master_port=get_open_port(),
                world_size=1 + self._num_workers,
                rank=0,
            ),
            client=client,
            source=source,
        )

    def close(self) -> None:
        if self._sender is not None:
            self._sender.shutdown()
            self._sender = None
