"""The one exception tree.

A user's mistake, or a machine's limit that a user can act on, raises a subclass of `RlvrZooError`:
the command line prints its message as one line and exits with 2.  Anything else is our fault and
shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlvrZooError(Exception):
    """Something that the user can put right; the message names the cause and a way out."""


class ConfigError(RlvrZooError, ValueError):
    """A setting that is unknown, malformed, or cannot work together with another."""


class NotFoundError(RlvrZooError, LookupError):
    """A name (algorithm, model, protocol, run ...) that nothing answers to."""


class ProblemsError(RlvrZooError, ValueError):
    """A problem set that cannot be used as it is."""


class ModelError(RlvrZooError, ValueError):
    """A model that cannot be loaded, or that this trainer cannot drive."""


class RunFolderError(RlvrZooError, ValueError):
    """An output folder that cannot take, or does not hold, the run that was asked for."""


class GoldenError(RlvrZooError, ValueError):
    """Golden cases that cannot be read, or that ask for what an algorithm cannot be set to."""


class DivergedError(RlvrZooError, ArithmeticError):
    """Training that cannot go on: its loss or gradient is no longer finite."""


class DeviceMemoryError(RlvrZooError, MemoryError):
    """A GPU's memory does not suffice for the smallest piece of work."""


class SyncError(RlvrZooError, ArithmeticError):
    """A rollout engine that does not sample the policy that is trained."""


class EngineError(RlvrZooError, RuntimeError):
    """A rollout engine that is not there, has died, or is not what the run needs."""


class RankError(RlvrZooError, RuntimeError):
    """Processes of one run that do not fit together, or one that is gone."""


class StorageError(RlvrZooError, OSError):
    """The disk refused a write."""


class PluginError(RlvrZooError, ImportError):
    """A plug-in that two packages claim, or that fails to import."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that offers the known names: the near ones, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(match) for match in near) + "?"
    return "known: " + ", ".join(names) if names else "none is known"


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
