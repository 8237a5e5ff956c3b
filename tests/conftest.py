"""What every test stands on: one thread, no network, no tracker of the user's, a cache of its own.

The environment is set here and not in a fixture because torch and huggingface_hub read it when
they are imported; child processes inherit it.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[name]
os.environ |= {
    "OMP_NUM_THREADS": "1",  # beside a busy process, two threads are six times slower than one
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "",  # a trainer takes what it sees; the tests' tensors are on the CPU
}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

TIERS = ("unit", "contract", "golden", "smoke", "perf")
"""Markers, fastest first.  A folder of that name marks its tests; a test in any other is `unit`."""


def tier(item: pytest.Item) -> str:
    for marker in item.iter_markers():
        if marker.name in TIERS:
            return marker.name
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return folder if folder in TIERS else "unit"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(tier(item))
    items.sort(key=lambda item: TIERS.index(tier(item)))


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the tiny model's warm-up is kept: once a session, or across sessions if told where."""
    given = os.environ.get("RLVR_ZOO_TEST_CACHE")
    folder = Path(given) if given else tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLVR_ZOO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public test data, which is no part of the project."""
    given = os.environ.get("RLVR_ZOO_TEST_DATA")
    if not given:
        pytest.skip("RLVR_ZOO_TEST_DATA does not name a folder of test data")
    return Path(given)
