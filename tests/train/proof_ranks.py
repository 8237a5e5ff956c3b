"""Started by test_proven_evaluation.py on every rank: `proof_ranks PARALLEL OUT`.

Runs that prove their evaluations: one whole, and one whose last sync does not arrive.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed

from rlvr_zoo import registry
from rlvr_zoo.errors import SyncError
from tests.train.test_proven_evaluation import CopyEngine, run


def main(parallel: str, out: Path) -> None:
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, load = os.environ["RANK"], registry.load

    def loaded(group: str, name: str) -> Any:
        return CopyEngine if group == registry.ROLLOUTS else load(group, name)

    registry.load = loaded
    settings = (f"train.parallel={parallel}", "train.max_steps=1")
    record = run(out / "whole", *settings)
    gaps = [each.logp_gap for each in record.evaluations]
    assert len(gaps) == 2 and all(0 <= gap < 1e-6 for gap in gaps), gaps
    CopyEngine.drops = 1
    try:
        run(out / "dropped", *settings)
    except SyncError as error:
        (out / f"caught-{rank}").write_text(str(error))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
