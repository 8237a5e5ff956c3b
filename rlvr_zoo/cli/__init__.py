"""The command line.  It loads nothing heavy before a command needs it."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs a command.

    Exit codes: 0 done, 1 our fault, 2 bad input or a machine's limit, and resumable: 130 after
    Ctrl-C, 75 after SIGTERM.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars but ours; read when imported
    from rlvr_zoo.cli import many  # noqa: F401  # its commands join the app's
    from rlvr_zoo.cli.app import app
    from rlvr_zoo.errors import RlvrZooError
    from rlvr_zoo.launch import report

    report.adopt()
    try:
        app()
    except RlvrZooError as error:
        report.user_error(error)
        sys.exit(2)
    except Exception as error:
        if not report.is_rank():
            raise
        report.fault(error)
        sys.exit(1)
