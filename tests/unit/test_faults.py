"""Planted faults keep up with the sources; whether tests notice them, `tox -e mutation` says."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_fault_can_be_planted() -> None:
    faults = runpy.run_path(str(ROOT / "tests/mutation/faults.py"))["FAULTS"]
    assert len(faults) > 40
    for fault in faults:
        for file, old, new in fault.changes:
            assert (ROOT / file).read_text().count(old) == 1 and new != old, fault.name
