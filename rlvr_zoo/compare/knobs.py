"""Knobs and their values, as the command line writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.protocol import Tree
from rlvr_zoo.resolve import parse_set


def parse_values(text: str) -> tuple[str, list[Any]]:
    """`similarity_coef=0.05,0.1` as a dotted key of a configuration, and its values.

    A key without a dot is a knob of the algorithm.  Raises ConfigError.
    """
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not key or not values.strip():
        raise ConfigError(f"--over {text}: write it as KNOB=VALUE,VALUE")
    path = key if "." in key else f"algorithm.{key}"
    found = [_value(path, value.strip()) for value in values.split(",")]
    if twice := [value for value in found if found.count(value) > 1]:
        raise ConfigError(f"--over {text}: {twice[0]} is there twice")
    return path, found


def _value(path: str, text: str) -> Any:
    value = at(parse_set([f"{path}={text}"]), path)
    try:
        return float(value) if isinstance(value, str) else value  # YAML takes 1e-4 for text
    except ValueError:
        return value


def parse_knobs(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Several of them, in order.  Raises ConfigError for a knob that is there twice, and none."""
    pairs = [parse_values(text) for text in texts]
    knobs = dict(pairs)
    if len(knobs) < len(pairs):
        raise ConfigError("--over: a knob is there twice; give all its values at once")
    if not knobs:
        raise ConfigError("which knobs? add --over KNOB=VALUE,VALUE")
    return knobs


def at(tree: Mapping[str, Any] | Tree, path: str) -> Any:
    """What a tree has at a dotted key."""
    value: Any = tree
    for key in path.split("."):
        value = value[key]
    return value
