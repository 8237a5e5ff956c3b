"""What an installation holds, whichever way it was installed (tox installs the wheel)."""

from importlib.metadata import distribution
from importlib.resources import files

import pytest


@pytest.mark.parametrize("package", ["rlvr_zoo", "rlvr_zoo_algorithms", "rlvr_zoo_benchmarks"])
def test_package_is_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("kind", ["models", "protocols"])
def test_presets_are_inside(kind: str) -> None:
    presets = list(files("rlvr_zoo").joinpath("presets", kind).iterdir())
    assert any(preset.name.endswith(".yaml") for preset in presets)


def test_suites_are_inside() -> None:
    tasks = files("rlvr_zoo_benchmarks").joinpath("tasks")
    assert tasks.joinpath("_math.yaml").is_file()
    for suite in ("aime24", "aime25", "aimo_amc", "amc23", "gsm8k", "math500", "olympiadbench"):
        assert tasks.joinpath(suite, f"{suite}.yaml").is_file()
        assert tasks.joinpath(suite, "manifest.csv").is_file()


def test_the_leaderboards_page_is_inside() -> None:
    page = files("rlvr_zoo.leaderboard").joinpath("page")
    assert {"index.html", "style.css", "main.js"} <= {each.name for each in page.iterdir()}


def test_entry_points_lead_somewhere() -> None:
    points = distribution("rlvr-zoo").entry_points
    assert {point.group for point in points} >= {
        "console_scripts",
        "rlvr_zoo.algorithms",
        "rlvr_zoo.rollouts",
        "rlvr_zoo.suites",
        "rlvr_zoo.verifiers",
    }
    for point in points:
        found = point.load()
        if point.group == "rlvr_zoo.suites":
            assert found.is_dir() and list(found.rglob(f"{point.name}.yaml"))
        else:
            assert callable(found) or point.group == "pytest11"  # a plug-in of pytest's


def test_licence_is_inside() -> None:
    assert distribution("rlvr-zoo").metadata["License-Expression"] == "Apache-2.0"
    assert any(path.name == "LICENSE" for path in distribution("rlvr-zoo").files or [])
