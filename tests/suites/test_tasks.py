"""The suites as lm-eval sees them: what each asks, how often, and of which problems."""

import csv
import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager

from rlvr_zoo.errors import NotFoundError, ProblemsError
from rlvr_zoo.problems.addition import addition
from rlvr_zoo_benchmarks import TASKS
from rlvr_zoo_benchmarks.dataset import load
from rlvr_zoo_benchmarks.pin import main

SUITES = {  # name: (problems, samples of each)
    "aime24": (30, 32),
    "aime25": (30, 32),
    "aimo_amc": (83, 32),
    "amc23": (40, 32),
    "gsm8k": (1319, 1),
    "math500": (500, 4),
    "olympiadbench": (675, 4),
}
BOXED = "\nPlease reason step by step, and put your final answer within \\boxed{}."


def config(name: str) -> dict[str, Any]:
    text = (TASKS / name / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def tasks(*names: str, **metadata: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    loaded: dict[str, Any] = manager.load(list(names))["tasks"]
    return loaded


def toy(folder: Path) -> Path:
    """A folder of tasks with one made-up suite, not yet pinned."""
    (folder / "tasks" / "toy").mkdir(parents=True)
    task = folder / "tasks" / "toy" / "toy.yaml"
    task.write_text(
        "task: toy  # kept\ndataset_kwargs:\n  pin:\n    name: toy\n    file: toy\n"
        '    count: 0\n    digest: ""\nmetadata:\n  version: 1.0\n'
    )
    rows = [{"id": f"toy-{n}", "problem": f"{n} + 1?", "answer": f"{n + 1}"} for n in range(3)]
    (folder / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return task


# --------------------------------------------------------------------------------- what is written


def test_every_task_is_registered_under_its_name_and_nothing_else_is() -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert set(manager.all_tasks) == {*SUITES, "micro", "micro-hard", "rlvr_math"}
    points = entry_points(group="rlvr_zoo.suites")
    ours = {point.name for point in points if point.value == "rlvr_zoo_benchmarks:TASKS"}
    assert ours == set(manager.all_tasks)


@pytest.mark.parametrize(("name", "wanted"), SUITES.items())
def test_a_suite_says_what_it_is_made_of(name: str, wanted: tuple[int, int]) -> None:
    task = config(name)
    pin = task["dataset_kwargs"]["pin"]
    assert (task["task"], pin["name"], pin["count"], task["repeats"]) == (name, name, *wanted)
    assert re.fullmatch(r"[0-9a-f]{64}", pin["digest"])
    assert re.fullmatch(r"[0-9a-f]{40}", pin["revision"]) or name == "olympiadbench"
    assert re.fullmatch(r"[\w-]+/[\w-]+", pin["hub"])
    assert re.fullmatch(r"[\w-]+/[\w.-]+:\S+\.jsonl?@[0-9a-f]{12}", pin["source"])
    assert task["metadata"]["version"] == 1.0


@pytest.mark.parametrize("name", SUITES)
def test_manifests_hold_ids_and_hashes_only(name: str) -> None:
    with (TASKS / name / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows) == SUITES[name][0]
    assert all(re.fullmatch(r"[\w/-]{3,40}", row["id"]) for row in rows)
    assert all(
        re.fullmatch(r"[0-9a-f]{16}", row[key]) for row in rows for key in row if key != "id"
    )


def test_the_larger_amc_holds_the_smaller_one() -> None:
    texts = {}
    for name in ("amc23", "aimo_amc"):
        with (TASKS / name / "manifest.csv").open(encoding="utf-8", newline="") as file:
            texts[name] = {row["problem"] for row in csv.DictReader(file)}
    assert len(texts["amc23"] & texts["aimo_amc"]) == 40


# ------------------------------------------------------------------------------ what lm-eval loads


def test_micro_is_the_default_split_of_the_embedded_task() -> None:
    task = tasks("micro")["micro"]
    docs = list(task.test_docs())
    assert [(doc["problem"], doc["answer"]) for doc in docs] == [
        (problem.prompt, problem.answer) for problem in addition(256, 0)[1]
    ]
    assert task.doc_to_text(docs[0]) == docs[0]["problem"] == "00+26="
    assert (task.config.repeats, task.VERSION) == (4, 1.0)
    assert task.config.generation_kwargs == {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
        "max_gen_toks": 12,
        "until": [],
    }


def test_a_generator_that_changed_is_refused() -> None:
    pin = config("micro")["dataset_kwargs"]["pin"]
    with pytest.raises(ProblemsError, match=r"micro: the 256 problems are not the pinned ones"):
        load(pin | {"seed": 1})


def test_the_folder_comes_from_the_metadata_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLVR_ZOO_DATA", str(tmp_path))
    with pytest.raises(NotFoundError, match=f"aime24: no aime24.jsonl in {tmp_path} "):
        tasks("aime24")
    with pytest.raises(NotFoundError, match="aime24: /nowhere is no folder"):
        tasks("aime24", data="/nowhere")


def test_what_else_the_metadata_holds_is_passed_over(tmp_path: Path) -> None:
    task = toy(tmp_path)
    assert main(str(tmp_path), str(tmp_path / "tasks")) == 0
    pin = yaml.safe_load(task.read_text())["dataset_kwargs"]["pin"]
    model = {"pretrained": "x", "revision": "main", "name": "y", "split": "z", "version": 2}
    docs = load(pin, str(tmp_path), str(task), **model)["test"]
    assert docs.column_names == ["id", "answer", "source", "tolerance", "problem"]
    assert docs[2] == {
        "id": "toy-2",
        "problem": "2 + 1?",
        "answer": "3",
        "source": "toy.jsonl:3",
        "tolerance": 0.0,
    }


@pytest.fixture(scope="module")
def real(data_dir: Path) -> dict[str, Any]:
    return tasks("rlvr_math", data=str(data_dir))


@pytest.mark.parametrize("name", SUITES)
def test_the_test_data_are_the_pinned_content(real: dict[str, Any], name: str) -> None:
    task = real[name]
    docs = list(task.test_docs())
    assert (len(docs), task.config.repeats) == SUITES[name]
    assert task.doc_to_text(docs[0]) == docs[0]["problem"] + BOXED
    assert str(task.doc_to_target(docs[0])) == docs[0]["answer"]
    assert task.config.generation_kwargs["max_gen_toks"] == 3072
    assert {doc["tolerance"] for doc in docs} == ({0.0, 0.1} if name == "olympiadbench" else {0.0})


def test_the_group_has_each_suite_once(real: dict[str, Any]) -> None:
    assert set(real) == set(SUITES)


def test_the_known_wrong_answer_to_aime_2024_is_named(data_dir: Path, tmp_path: Path) -> None:
    lines = (data_dir / "aime24.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    wrong = [row | {"answer": "999"} if row["id"] == "aime24-I-08" else row for row in rows]
    (tmp_path / "aime24.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))
    with pytest.raises(
        ProblemsError,
        match=r"1 of 30 .* \(aime24-I-08 has another answer or tolerance\).*QwenLM/Qwen2.5-Math:",
    ):
        tasks("aime24", data=str(tmp_path))


def test_the_degree_sign_of_aime_2025_is_tolerated(data_dir: Path, tmp_path: Path) -> None:
    text = (data_dir / "aime25.jsonl").read_text(encoding="utf-8")
    changed = text.replace('"answer": "336"', r'"answer": "336^\\circ"')
    assert changed != text
    (tmp_path / "aime25.jsonl").write_text(changed, encoding="utf-8")
    assert len(tasks("aime25", data=str(tmp_path))["aime25"].test_docs()) == 30


# --------------------------------------------------------------------------------- how it is pinned


def test_pinning_writes_count_digest_and_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = toy(tmp_path)
    assert main(str(tmp_path), str(tmp_path / "tasks")) == 0
    pin = yaml.safe_load(task.read_text())["dataset_kwargs"]["pin"]
    assert pin["count"] == 3
    assert capsys.readouterr().out == f"toy: 3 problems, {pin['digest']}\n"
    assert task.read_text().startswith("task: toy  # kept\n")
    assert len(load(pin, str(tmp_path), str(task))["test"]) == 3
    (tmp_path / "toy.jsonl").write_text('{"problem": "0 + 1?", "answer": "1"}\n')
    with pytest.raises(ProblemsError, match=r"toy: 2 of 3 problems are not the pinned \(toy-1, "):
        load(pin, str(tmp_path), str(task))


def test_pinning_without_the_files_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = toy(tmp_path).read_text()
    (tmp_path / "toy.jsonl").unlink()
    assert main(str(tmp_path), str(tmp_path / "tasks")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: toy: no toy.jsonl in ") and error.count("\n") == 1
    assert (tmp_path / "tasks" / "toy" / "toy.yaml").read_text() == before


def test_what_is_committed_is_what_the_test_data_give(data_dir: Path, tmp_path: Path) -> None:
    for name in SUITES:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.yaml").write_bytes((TASKS / name / f"{name}.yaml").read_bytes())
    assert main(str(data_dir), str(tmp_path)) == 0
    for name in SUITES:
        for file in ("manifest.csv", f"{name}.yaml"):
            assert (tmp_path / name / file).read_bytes() == (TASKS / name / file).read_bytes()


def test_the_suite_that_the_document_shows_can_be_pinned_and_loaded(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/suites.md").read_text()
    (yaml_block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    task = tmp_path / "tasks/mine/mine.yaml"
    task.parent.mkdir(parents=True)
    task.write_text(yaml_block)
    rows = [{"problem": f"What is {n}?", "answer": str(n)} for n in range(3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(str(tmp_path), str(tmp_path / "tasks")) == 0
    manager = TaskManager(
        include_path=str(tmp_path / "tasks"),
        include_defaults=False,
        metadata={"data": str(tmp_path)},
    )
    (mine,) = manager.load(["mine"])["tasks"].values()
    assert [doc["answer"] for doc in mine.eval_docs] == ["0", "1", "2"]
    assert mine.config.repeats == 8

    task.write_text("- no task")
    assert main(str(tmp_path), str(tmp_path / "tasks")) == 2
