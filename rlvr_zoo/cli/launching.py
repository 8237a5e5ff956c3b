"""`--num-processes` and its companions: the command starts itself, once for every rank."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.launch import report
from rlvr_zoo.launch.machines import Machines


@dataclass(frozen=True, kw_only=True)
class LaunchFlags:
    """What the command line said; None is what it left open."""

    num_processes: int | None
    machines: int | None
    machine_rank: int | None
    main_address: str | None

    def across(self) -> Machines | None:
        """The machines, where there are several.  Raises ConfigError for flags that do not fit."""
        if self.machines is None or self.machines == 1:
            if self.machine_rank or (self.main_address and self.machines is None):
                raise ConfigError("--machine-rank, --main-address: give --machines M, too")
            return None
        if self.num_processes is None:
            raise ConfigError("--machines: give --num-processes N, too, this machine's ranks")
        if self.machine_rank is None or not 0 <= self.machine_rank < self.machines:
            raise ConfigError(
                f"--machine-rank {self.machine_rank}: number the {self.machines} machines from 0 to"
                f" {self.machines - 1}, and give each its own"
            )
        host, _, port = (self.main_address or "").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(
                f"--main-address {self.main_address}: write it as HOST:PORT, a free port of the"
                " machine with --machine-rank 0, the same on every machine"
            )
        return Machines(
            number=self.machines, mine=self.machine_rank, host=host.strip("[]"), port=int(port)
        )


def launched(flags: LaunchFlags) -> int | None:
    """Starts the ranks that the flags ask for, and returns their exit code; None where this
    process is to do the work: it is a rank, or the only one.  Raises ConfigError, RankError."""
    machines = flags.across()
    if report.is_supervised() or (flags.num_processes in (None, 1) and machines is None):
        return None
    from rlvr_zoo.launch.supervisor import launch

    assert flags.num_processes is not None
    return launch(sys.argv[1:], flags.num_processes, machines)
