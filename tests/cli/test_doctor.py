"""What `rlvr-zoo doctor` says of vLLM: not there, broken, or what of it would work."""

import importlib.util
import json
from pathlib import Path

import pytest

from rlvr_zoo.cli import doctor
from rlvr_zoo.rollout import vllm

from .conftest import Cli


def said(cli: Cli) -> tuple[object, str, int]:
    outcome = cli("doctor", "--json")
    found = {row["name"]: row for row in json.loads(outcome.out)}
    assert "GiB free" in found["memory"]["what"]
    return found["engine vllm"]["ok"], found["engine vllm"]["what"], outcome.code


def test_a_vllm_that_is_missing_is_not_available(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "installed", lambda: "")
    ok, what, code = said(cli)
    assert (ok, code) == (None, 0)
    assert "not installed" in what and "pip install" in what and "servers elsewhere" in what
    assert "not available" in cli("doctor").out


def test_a_vllm_that_is_broken_is_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vllm.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(vllm, "installed", lambda: "0.32.0")
    ok, what, code = said(cli)
    assert (ok, code) == (False, 1)
    assert "cannot be imported (ImportError: libcudart.so.13: cannot open)" in what
    (tmp_path / "vllm.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "IMPORT_TIMEOUT_S", 0.5)
    assert "not done after 0.5 s" in said(cli)[1]


def test_without_a_gpu_only_servers_work(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vllm.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(vllm, "installed", lambda: "0.32.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "_is_cpu_build", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    ok, what, _ = said(cli)
    assert ok is None and "no GPU" in what
    monkeypatch.setattr(doctor, "_is_cpu_build", lambda: True)
    ok, what, _ = said(cli)
    assert ok is True and "works in the trainer's process" in what
