"""`rlvr-zoo export`: a run's policy as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from rlvr_zoo.cli.run import load_quietly
from rlvr_zoo.errors import ConfigError

DTYPES = ("fp32", "bf16")


def export_command(run: Path, folder: Path, step: int | None, dtype: str) -> None:
    """Writes the folder.  Raises ConfigError, RunFolderError, StorageError."""
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: choose {' or '.join(DTYPES)}")
    load_quietly(lambda message: None)
    from rlvr_zoo.train.export import export

    done = export(run, folder, step, dtype)
    print(f"wrote {folder}: step {done.step}, {done.num_parameters:,} parameters in {done.dtype}")
