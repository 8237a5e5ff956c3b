"""Packages that only some settings need: found missing before a model is loaded, imported quietly.

Each comes with an extra of the same installation, which the message names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError, first_line


def check(config: RunConfig) -> None:
    """Refuses settings whose package is not installed; imports nothing.  Raises ConfigError."""
    if config.lora.rank and find_spec("peft") is None:
        raise _missing("peft", "lora", f"lora.rank={config.lora.rank}", "it is not installed")
    if config.optimizer.moments == "8bit" and find_spec("torchao") is None:
        raise _missing("torchao", "low-memory", "optimizer.moments=8bit", "it is not installed")


@contextmanager
def optional(package: str, extra: str, setting: str) -> Iterator[None]:
    """Around the import of such a package.  Raises ConfigError where that fails.

    torchao, which peft imports too, logs kernels that it cannot load and that nothing here uses.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except ImportError as error:
        raise _missing(package, extra, setting, first_line(error)) from error
    finally:
        logging.disable(before)


def _missing(package: str, extra: str, setting: str, why: str) -> ConfigError:
    return ConfigError(f"{setting} needs {package}: {why}; pip install 'rlvr-zoo[{extra}]'")
