"""The engine that samples by vLLM; the only file that imports it.

Colocated, vLLM runs in the trainer's process: weights are handed over in memory, and where the
platform can, it sleeps while the trainer updates.  With `rollout.vllm.servers` the work goes to
vLLM servers (`vllm_servers.py`).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
from torch import distributed

from rlvr_zoo.api import Rollout
from rlvr_zoo.config import RolloutConfig, VllmConfig
from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import PLAIN, Compute, Request, Sampling, Weights
from rlvr_zoo.rollout.completions import Completion, Host, Job, Rules
from rlvr_zoo.rollout.links import Client, Sender, Source
from rlvr_zoo.rollout.server_http import one_line
from rlvr_zoo.rollout.teams import joined, team
from rlvr_zoo.rollout.vllm_local import buffers, config_folder, weights_missing
from rlvr_zoo.rollout.vllm_servers import Servers

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


class VllmEngine:
    """Sampling by vLLM, every completion from its own seed.

    Sampling log-probs are at the sampling temperature; under top-p, of what top-p has left.
    """

    exact = False
    follows = True

    def __init__(self, model: LoadedModel, config: RolloutConfig, compute: Compute = PLAIN) -> None:
        """Raises EngineError where vLLM is missing or broken or a server is down, ConfigError where
        the settings do not fit vLLM, the ranks or the device.
        """
        settings = config.vllm
        _refuse_hotter(config.temperature, "rollout.temperature=")
        nccl = bool(settings.servers) and _by_nccl(settings, compute)
        if nccl or not settings.servers:
            require()
        self._tokenizer, self._eos_ids = model.tokenizer, model.eos_ids
        self._version: int | None = None
        given = {"auto": compute.dtype, "float32": torch.float32, "bfloat16": torch.bfloat16}
        dtype = given[settings.dtype]
        self._host: Host
        if settings.servers:
            servers = Servers(model, settings, dtype, _nccl_sender if nccl else None)
            for found in servers.versions:
                _warn_of(found)
            self._host = servers
        else:
            self._host = Colocated(model, settings, dtype)

    @property
    def dtype(self) -> torch.dtype | None:
        """What vLLM computes in; None where servers do not tell, or differ."""
        return self._host.dtype

    @property
    def description(self) -> str:
        """vLLM's version, its precision, and where it runs, for people."""
        return self._host.description

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        """For each request one rollout a seed, in order.  Raises EngineError where vLLM fails or
        returns what cannot be trained on."""
        assert self._version is not None, "no sync since the start, or since the last rest"
        _refuse_hotter(sampling.temperature, "temperature ")
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
        """Samples from these weights from now on.  Equal versions are equal weights: where it has
        them already, it does nothing."""
        if version == self._version:
            return
        self._version = None  # until it is done
        self._host.load(weights, version)
        self._version = version

    def rest(self) -> None:
        """Sleeps, where vLLM shares the trainer's devices; servers keep their weights."""
        if isinstance(self._host, Colocated):
            self._version = None
        self._host.rest()

    def close(self) -> None:
        """Ends vLLM in this process; servers go on."""
        self._host.close()


def require() -> None:
    """Raises EngineError where vLLM is missing; warns of a version that is not supported."""
    found = installed()
    if not found:
        raise EngineError(f"vLLM is not installed: {INSTALL}; or take the engine transformers")
    _warn_of(found)


def _warn_of(found: str) -> None:
    if not is_supported(found):
        warnings.warn(
            f"vLLM {one_line(found, 40)} is not among the supported versions, {SUPPORTED}"
            f" (tested: {', '.join(TESTED)})",
            stacklevel=3,
        )


def _refuse_hotter(temperature: float, name: str) -> None:
    if temperature > MAX_TEMPERATURE:
        raise ConfigError(
            f"{name}{temperature}: vLLM takes {MAX_TEMPERATURE} at most; set that or less, or"
            " rollout.engine=transformers"
        )


def _by_nccl(settings: VllmConfig, compute: Compute) -> bool:
    has_gpu = compute.device.type == "cuda"
    if settings.transfer == "nccl" and not has_gpu:
        raise ConfigError(
            "rollout.vllm.transfer=nccl: goes from a GPU, and the trainer has none; set"
            " rollout.vllm.transfer=files"
        )
    return has_gpu and settings.transfer != "files"


@contextmanager
def _working() -> Iterator[None]:
    """Raises EngineError where vLLM is broken or cannot start: of its imports, an architecture it
    lacks, too little memory, an option of another version ..."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of vLLM's own use of torch
            yield
    except (
        ImportError, OSError, AssertionError, ValueError, RuntimeError, TypeError, AttributeError,
        LookupError,
    ) as error:  # fmt: skip
        if isinstance(error, EngineError):
            raise
        said = one_line(str(error), 400)  # pydantic's has the reason in its third line
        raise EngineError(
            f"vLLM does not start: {type(error).__name__}: {said}; set rollout.vllm otherwise,"
            " mend its installation, or set rollout.engine=transformers"
        ) from error


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
        options: dict[str, Any] = {
            "model": str(config_folder(model.lm)),
            "load_format": "dummy",  # the first sync brings the weights
            "skip_tokenizer_init": True,
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": model.max_context_tokens,
            "gpu_memory_utilization": settings.gpu_memory_share,
            "tensor_parallel_size": width,
            "distributed_executor_backend": None if ranks == 1 else "external_launcher",
            "enforce_eager": settings.enforce_eager,
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",
            "disable_log_stats": True,
        }
        if settings.max_num_seqs:  # else vLLM's own choice for the device
            options["max_num_seqs"] = settings.max_num_seqs
        with _working():
            from vllm import LLM
            from vllm.platforms import current_platform

            self._can_sleep, self._asleep = bool(current_platform.is_sleep_mode_available()), False
            self._llm: Any = LLM(**options, enable_sleep_mode=self._can_sleep)
        self.dtype: torch.dtype | None = dtype
        self.description = f"vllm {installed()}, {options['dtype']}, in the trainer's process"
        self._rules, self._stop_ids = Rules.of(model), sorted(model.eos_ids)
        self._buffers = buffers(model.lm)
        self._team = team(ranks, width)
        self.rest()

    def complete(self, jobs: Sequence[Job], sampling: Sampling) -> list[Completion]:
        """One completion a job, in order."""
        from vllm import SamplingParams, TokensPrompt

        together, first = joined(jobs, self._team)
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
        most = sampling.max_completion_tokens
        return [
            self._rules.checked(_completion(output.outputs[0]), most, "vLLM") for output in mine
        ]

    def load(self, weights: Weights, version: int) -> None:
        """Takes the weights over from memory, waking up where it sleeps."""
        self._wake("weights")  # the cache would take the room that loading needs
        pairs = ((name, tensor.detach()) for name, tensor in chain(weights(), self._buffers))
        with weights_missing() as missing:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": pairs})
        if missing:
            raise EngineError(
                "vLLM was not given all of its model's weights, and would compute with others"
                f" ({one_line('; '.join(missing))}); set rollout.engine=transformers"
            )
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


def _completion(output: Any) -> Completion:
    ids, steps = tuple(output.token_ids), output.logprobs or ()
    logps = [at[token].logprob for at, token in zip(steps, ids, strict=False) if token in at]
    return Completion(ids, tuple(logps), output.finish_reason)


# --------------------------------------------------------------------------- to servers, by NCCL


def _nccl_sender(source: Source, client: Client, num_workers: int) -> Sender:
    """vLLM's trainer-side engine, connected to the workers."""
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
    from vllm.utils.network_utils import get_ip, get_open_port

    sender: Sender = WeightTransferTrainerFactory.trainer_init(
        NCCLTrainerInitInfo(
            master_address=get_ip(),
            master_port=get_open_port(),
            world_size=1 + num_workers,
            rank=0,
        ),
        client=client,
        source=source,
    )
    return sender
