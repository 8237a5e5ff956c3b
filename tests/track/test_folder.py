import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr_zoo.api import Group, Problem, Rollout, Verdict
from rlvr_zoo.errors import RunFolderError, StorageError
from rlvr_zoo.track.folder import RunFolder, samples_of
from rlvr_zoo.track.reader import RunReader, suites_folder

from .conftest import evaluation

GROUP = Group(
    problem=Problem(id="p1", prompt="1+1=", answer="2"),
    prompt_ids=(1,),
    rollouts=(
        Rollout(ids=(1, 2), logp=(0.0, 0.0), text="2 \udc80\u2028", truncated=False),
        Rollout(ids=(1,), logp=(0.0,), text="", truncated=True),
    ),
    verdicts=(
        Verdict(correct=True, extracted="2", method="string"),
        Verdict(correct=False, extracted="", method="none", problem="timeout"),
    ),
)


def test_what_is_written_is_read_back(run: RunFolder) -> None:
    run.append_samples(samples_of(1, GROUP))
    run.append_evaluation(evaluation(0))
    reader = RunReader(run.path)
    assert reader.config()["algorithm"]["settings"] == {"clip_high": 0.28}
    first, second = reader.metrics()
    assert (first.step, first.metrics["train/loss"]) == (1, 0.5)
    assert math.isnan(first.metrics["train/kl"])
    assert second.metrics["train/kl"] == math.inf
    assert abs(first.time - time.time()) < 60
    good, bad = reader.samples()
    assert (good.completion, good.num_tokens, good.correct) == ("2 \udc80\u2028", 2, True)
    assert (bad.verdict_problem, bad.truncated, bad.method) == ("timeout", True, "none")
    assert good.sample == 0 and bad.sample == 1
    assert list(reader.evaluations()) == [evaluation(0)]


def test_metrics_are_json_that_any_reader_takes(run: RunFolder) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    texts = (run.path / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(text, parse_constant=refuse)["metrics"]["train/kl"] for text in texts]
    assert values == ["NaN", "Infinity"]


def test_create_refuses_a_run_and_foreign_files_and_leaves_them_alone(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {"seed": 1}).close()
    with pytest.raises(RunFolderError, match=r"holds a run already; go on with it by --resume"):
        RunFolder.create(tmp_path / "run", {"seed": 2})
    assert RunReader(tmp_path / "run").config() == {"seed": 1}
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").touch()
    with pytest.raises(RunFolderError, match=r"other files \(chapter.tex\); choose another"):
        RunFolder.create(foreign, {})
    assert [each.name for each in foreign.iterdir()] == ["chapter.tex"]
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.create(foreign / "chapter.tex", {})
    with pytest.raises(RunFolderError, match="holds no run"):
        RunFolder.open(foreign)


def test_a_folder_that_cannot_be_made_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"/proc/run: .*; choose another place with --output"):
        RunFolder.create(Path("/proc/run"), {})


def test_one_writer_at_a_time(run: RunFolder) -> None:
    assert RunReader(run.path).is_alive()
    with pytest.raises(RunFolderError, match="another process is writing this run"):
        RunFolder.open(run.path)
    run.close()
    assert not RunReader(run.path).is_alive()
    with RunFolder.open(run.path):
        assert RunReader(run.path).is_alive()


def test_a_half_line_is_passed_over_and_then_cut(run: RunFolder) -> None:
    path = run.path / "metrics.jsonl"
    run.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 3, "ti')
    assert [line.step for line in RunReader(run.path).metrics()] == [1, 2]
    with RunFolder.open(run.path) as again:
        assert path.read_bytes() == whole
        again.append_metrics(3, {})
        assert [line.step for line in again.metrics()] == [1, 2, 3]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"time": 1}', '{"step": 2, "time": "x"}'])
def test_damage_elsewhere_is_named(run: RunFolder, line: str) -> None:
    path = run.path / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: .*line"):
        list(RunReader(run.path).metrics())


def test_rewind_drops_what_came_after(run: RunFolder) -> None:
    for step in (3, 4):
        run.append_metrics(step, {"x": step})
        run.append_metrics(step, {"evaluate/x": step})
        run.append_samples(samples_of(step, GROUP))
        run.append_evaluation(evaluation(step))
        suites_folder(run.path, step).mkdir(parents=True)
    run.rewind(3)
    assert [path.name for path in (run.path / "suites").iterdir()] == ["step-00000003"]
    assert [line.step for line in run.metrics()] == [1, 2, 3, 3]
    assert {line.step for line in run.samples()} == {3}
    assert [line.step for line in run.evaluations()] == [3]
    run.rewind(0)
    assert list(run.metrics()) == list(run.samples()) == list(run.evaluations()) == []


WRITER = """
import sys
from pathlib import Path
from rlvr_zoo.track.folder import RunFolder
folder = RunFolder.create(Path(sys.argv[1]), {})
step = 0
while True:
    folder.append_metrics(step, {f"metric/{i}": i / 7 for i in range(300)})
    step += 1
    if step == 20:
        print("going", flush=True)
"""


def test_a_killed_writer_leaves_a_folder_that_can_be_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(RunFolderError, match="another process"):
            RunFolder.open(path)
        writer.send_signal(signal.SIGKILL)
    with RunFolder.open(path) as folder:
        steps = [line.step for line in folder.metrics()]
        assert steps == list(range(len(steps)))
        assert len(steps) >= 20
        folder.rewind(9)
        assert [line.step for line in folder.metrics()] == list(range(10))


def test_a_full_disk_costs_the_line_and_not_the_file(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run.path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr("os.write", lambda fd, data: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(StorageError, match=r"metrics.jsonl: No space; free space there"):
        run.append_metrics(3, {"x": 1.0})
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_importing_track_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, rlvr_zoo.track.folder, rlvr_zoo.track.mirror, rlvr_zoo.track.mlflow\n"
        "from rlvr_zoo.track.provenance import versions, hardware, code\n"
        "versions(), hardware(), code()\n"
        "print({'torch', 'mlflow', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
