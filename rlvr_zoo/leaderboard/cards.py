"""An algorithm's card: its paper, equations, deviations, as its plug-in has it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from rlvr_zoo import registry
from rlvr_zoo.errors import RlvrZooError


def card_of(name: str) -> str:
    """The Markdown of cards/NAME.md beside the plug-in's package, else what its module says of
    itself; empty for an algorithm that is not installed.

    An ablation has its algorithm's card.
    """
    try:
        cls = registry.algorithm(name).cls
    except RlvrZooError:
        return ""
    package = Path(inspect.getfile(cls)).parent
    beside = package.parent / "cards"  # in a checkout
    for folder in (package / "cards", *([beside] if "site-packages" not in beside.parts else [])):
        for stem in (name, name.rpartition("-")[0]):
            card = folder / f"{stem}.md"
            if stem and card.is_file():
                return card.read_text(encoding="utf-8")
    return inspect.getdoc(sys.modules[cls.__module__]) or ""
