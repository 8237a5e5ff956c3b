"""The flags that start ranks, and the ready configurations for accelerate."""

import argparse
import os
import signal
import time
from pathlib import Path

import pytest

from rlvr_zoo.errors import ConfigError, RankError
from rlvr_zoo.launch import machines
from rlvr_zoo.launch.machines import Machines, meet
from rlvr_zoo.launch.report import Report
from rlvr_zoo.launch.signals import Terminated, stop_requests, terminable
from rlvr_zoo.launch.supervisor import Place, free_port
from rlvr_zoo.launch.verdict import judge
from rlvr_zoo.train import ranks

from .conftest import Cli


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--machines=2"], "give --num-processes N"),
        (["--machines=2", "--num-processes=2"], "number the 2 machines from 0 to 1"),
        (["--machines=2", "--num-processes=2", "--machine-rank=2"], "from 0 to 1"),
        (["--machines=2", "--num-processes=2", "--machine-rank=0"], "HOST:PORT"),
        (["--num-processes=2", "--machine-rank=1"], "give --machines M"),
        (
            ["--machines=2", "--num-processes=1", "--machine-rank=1", "--main-address=node0"],
            "HOST:PORT",
        ),
    ],
)
def test_flags_that_do_not_fit(cli: Cli, flags: list[str], part: str) -> None:
    outcome = cli("run", "--algo=popo", *flags)
    assert outcome.code == 2 and part in outcome.error


def test_a_launch_within_a_launch_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for command in (("run", "--algo=popo"), ("eval", "--model=tiny", "--suite=micro")):
        outcome = cli(*command, "--num-processes=2")
        assert outcome.code == 2 and "one of several already" in outcome.error


def test_a_dry_run_starts_no_ranks(cli: Cli) -> None:
    outcome = cli("run", "--algo=popo", "--num-processes=2", "--dry-run")
    assert outcome.code == 0 and outcome.out.startswith("algo: popo")


# ------------------------------------------------------------------------------------ accelerate


@pytest.mark.parametrize(
    ("name", "num_machines", "num_processes", "kind"),
    [
        ("1gpu", 1, 1, "NO"),
        ("2gpu", 1, 2, "FSDP"),
        ("4gpu", 1, 4, "FSDP"),
        ("8gpu", 1, 8, "FSDP"),
        ("2machines", 2, 16, "FSDP"),
    ],
)
def test_accelerate_takes_the_ready_configurations(
    cli: Cli, name: str, num_machines: int, num_processes: int, kind: str
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    path = cli("list", "launch", f"--path={name}").out.strip()
    config = load_config_from_file(path)
    assert config.num_machines == num_machines and config.num_processes == num_processes
    assert config.distributed_type.value == kind and config.mixed_precision == "bf16"
    assert name in cli("list", "launch").out
    if kind == "NO":
        return
    further = ["--machine_rank=1", "--main_process_ip=node0", "--main_process_port=29500"]
    given: argparse.Namespace = launch_command_parser().parse_args(
        ["--config_file", path, *(further if num_machines > 1 else []), "-m", "rlvr_zoo", "run"]
    )
    args, _, _ = _validate_launch_command(given)
    environment = prepare_multi_gpu_env(args)
    want = {
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_OFFLOAD_PARAMS": "false",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    }
    assert {key: environment[key] for key in want} == want
    assert int(args.nproc_per_node) == num_processes // num_machines
    if num_machines > 1:
        assert (args.node_rank, args.rdzv_endpoint) == (1, "node0:29500")


def test_where_presets_lie(cli: Cli) -> None:
    assert Path(cli("list", "models", "--path=tiny").out.strip()).is_file()
    assert "'8gpu'" in cli("list", "launch", "--path=8gpus").error
    assert "only launch" in cli("list", "suites", "--path=micro").error


# ------------------------------------------------------------------------------------ the verdict


def said(rank: int, kind: str, text: str, time_s: float) -> Report:
    return Report(rank=rank, kind=kind, text=text, time_s=time_s)  # type: ignore[arg-type]


def test_the_rank_that_was_killed_explains_the_others() -> None:
    reports = [said(0, "lost", "closed by peer", 1.0), said(2, "error", "no checkpoint", 2.0)]
    first = judge({0: 1, 1: -signal.SIGKILL, 2: 2, 3: -signal.SIGTERM}, reports, {3})[0]
    assert (first.code, first.rank) == (2, 1)
    assert "rank 1 was ended by SIGKILL" in first.text


def test_a_fault_explains_those_who_lost_touch_and_the_first_fault_the_second() -> None:
    reports = [
        said(0, "fault", "Traceback 0", 3.0),
        said(1, "lost", "closed by peer", 1.0),
        said(2, "fault", "Traceback 2", 2.0),
    ]
    first = judge({0: 1, 1: 1, 2: 1}, reports, ())[0]
    assert (first.code, first.text) == (1, "rlvr-zoo: rank 2 failed\nTraceback 2")


def test_one_error_of_all_ranks_is_nobody_s_own() -> None:
    reports = [said(rank, "error", "group_size=1", 10.0 - rank) for rank in range(3)]
    (only,) = judge({0: 2, 1: 2, 2: 2}, reports, ())
    assert only.text == "rlvr-zoo: error: group_size=1"
    (only,) = judge({0: 0, 1: 2}, reports[1:2], ())
    assert only.text == "rlvr-zoo: error: rank 1: group_size=1"


def test_an_interruption_hands_on_its_code() -> None:
    assert judge({0: 75, 1: 75}, (), ())[0].code == 75
    assert judge({0: 130, 1: 130}, (), ())[0].code == 130
    early = judge({0: -signal.SIGTERM, 1: 1}, [said(1, "lost", "closed", 1.0)], ())[0]
    assert (early.code, early.text) == (75, "")
    assert judge({0: 0, 1: 0}, (), ()) == []
    assert judge({0: 0, 1: 75}, (), {1}) == [], "which the launcher itself ended"


# ------------------------------------------------------------------------------------ its parts


def test_the_ranks_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    place = Place(num_processes=4, first_rank=8, world_size=12, address="node0", port=5)
    assert place.environment(1) == {
        "OMP_NUM_THREADS": "3",
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "12",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "node0",
        "MASTER_PORT": "5",
    }


def test_a_machine_that_does_not_come_is_named() -> None:
    mine = Machines(number=3, mine=0, host="127.0.0.1", port=free_port())
    with pytest.raises(RankError, match=r"machine 1, 2 did not come within 0 s; .*--machine-rank"):
        meet(mine, 1, 5, start_s=0.2)
    other = Machines(number=3, mine=1, host="127.0.0.1", port=free_port())
    with pytest.raises(RankError, match=r"machine 0 does not answer at 127\.0\.0\.1:\d+"):
        meet(other, 1, 5, start_s=0.2)
    assert machines.START_S >= 60, "schedulers start machines one by one"


def test_a_repeated_sigterm_lets_the_checkpoint_be_written() -> None:
    said: list[str] = []
    with stop_requests(said.append) as asked:
        assert asked() == 0
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.6)
        assert asked() == signal.SIGTERM and len(said) == 1


def test_ctrl_c_twice_stops_at_once_but_one_that_echoes_does_not() -> None:
    with stop_requests(lambda message: None) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() == signal.SIGINT
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_before_the_loop_is_an_interruption() -> None:
    with pytest.raises(Terminated), terminable():
        os.kill(os.getpid(), signal.SIGTERM)


# ------------------------------------------------------------------------------------ ranks


def test_mixed_versions_name_packages_and_ranks() -> None:
    ours = {"torch": "2.13.0", "transformers": "5.23.0"}
    theirs = {"torch": "2.12.1", "transformers": "5.23.0", "vllm": "0.32.0"}
    cards = [(ours, {}), (ours, {}), (theirs, {}), (ours, {})]
    with pytest.raises(RankError) as caught:
        ranks.refuse_mixed(lambda mine: cards, {}, ours)
    line = str(caught.value)
    assert "torch 2.13.0 on ranks 0-1 and 3, 2.12.1 on rank 2;" in line
    assert "vllm missing on ranks 0-1 and 3, 0.32.0 on rank 2;" in line
    assert "transformers" not in line
    ranks.refuse_mixed(lambda mine: [mine, mine], {"seed": 1}, ours)


def test_a_rank_with_other_settings_is_named() -> None:
    cards = [({}, {"seed": 1, "train": {"epochs": n}}) for n in (1, 1, 2)]
    with pytest.raises(RankError, match=r"rank 2 was started with another train\.epochs"):
        ranks.refuse_mixed(lambda mine: cards, {}, {"torch": "2.13.0"})


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon"])
def test_a_timeout_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ranks.TIMEOUT, text)
    with pytest.raises(ConfigError, match=ranks.TIMEOUT):
        ranks.timeout()


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(ConfigError, match="8 processes for 4 GPUs"):
        ranks.refuse_too_few_gpus()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    ranks.refuse_too_few_gpus()
