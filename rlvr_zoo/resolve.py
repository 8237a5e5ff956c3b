"""From presets, a file and flags to one checked `RunConfig`, and the digest of its protocol.

Layers, later ones win: defaults in `config.py` < the protocol's preset < the model's preset < the
algorithm's preset for that protocol < the config file < the flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from rlvr_zoo import registry
from rlvr_zoo.checks import build, check, check_eval
from rlvr_zoo.config import EvalConfig, RunConfig
from rlvr_zoo.errors import ConfigError, NotFoundError, PluginError, nearest
from rlvr_zoo.protocol import FREE, Tree, differences, without
from rlvr_zoo.track.reader import CHECKPOINTS, CONFIG

# --------------------------------------------------------------------------- presets


def presets(kind: str) -> dict[str, Tree]:
    """The `models`, `protocols` or `launch` files that come with the package, by name."""
    folder = resources.files("rlvr_zoo") / "presets" / kind
    return {
        entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text())
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def _protocol_preset(name: str) -> Tree:
    known = presets("protocols")
    if name not in known:
        raise NotFoundError(f"unknown protocol {name!r}: {nearest(name, known)}")
    return {key: value for key, value in known[name].items() if key != "description"}


def model_preset(name: str) -> Tree:
    """The settings that a model's name stands for: a preset, a local folder, or a hub name.

    Raises NotFoundError where it is none of them.
    """
    known = presets("models")
    if not name:
        raise NotFoundError(f"--model is empty: {nearest(name, known)}")
    if name in known:
        about = ("description", "architecture")  # of the model, and no settings of a run
        tree = {key: value for key, value in known[name].items() if key not in about}
        tree["model"] = {"name": name, **tree["model"]}
        return tree
    if Path(name).is_dir():
        asked = _run_of(Path(name)).get("model", {})  # by prompt, chat and system as the run did
        here = {"name": name, "path": str(Path(name).resolve()), "revision": ""}
        return {"model": {**asked, **here}}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return {"model": {"name": name, "path": name}}
    raise NotFoundError(
        f"unknown model {name!r}: no preset, no folder, no hub name (owner/name);"
        f" {nearest(name, known)}"
    )


def _run_of(folder: Path) -> Tree:
    """The configuration of the run that a checkpoint's policy belongs to; else empty."""
    above = folder.resolve().parents  # RUN/checkpoints/step-N/policy
    config = above[min(2, len(above) - 1)] / CONFIG
    if folder.resolve().parent.parent.name != CHECKPOINTS or not config.is_file():
        return {}
    return read_file(config)


# --------------------------------------------------------------------------- layers


def merge(base: Tree, over: Mapping[str, Any]) -> Tree:
    """`over` laid on `base`, section by section."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]!r} is there twice")
        return super().construct_mapping(node, deep)


def read_file(path: Path) -> Tree:
    """A config file (YAML).  Raises ConfigError where it cannot be read or is not a mapping."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"--config {path}: not YAML: {problem}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {path}: holds no settings; write `section: {{key: value}}`")
    return tree


def parse_set(assignments: Iterable[str]) -> Tree:
    """`key.path=value` settings as a tree; values are read as YAML scalars and lists.

    Raises ConfigError for one without `=` or a key.
    """
    tree: Tree = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.split(".")):
            raise ConfigError(f"--set {assignment}: write it as key.path=value")
        try:
            value = _value(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment}: the value is not YAML") from error
        tree = merge(_model_section(tree), _model_section(dotted({path: value})))
    return tree


def _value(text: str) -> Any:
    """A YAML list or quoted string where it begins as one, else one plain scalar, whatever is in
    it: `{problem} # 1` is text."""
    if text[:1] in ("[", '"', "'"):
        return yaml.safe_load(text)
    loader: Any = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False)) if text else "tag:yaml.org,2002:str"
    return loader.construct_object(yaml.ScalarNode(tag, text))


def dotted(settings: Mapping[str, Any]) -> Tree:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    tree: Tree = {}
    for path, value in settings.items():
        for key in reversed(path.split(".")):
            value = {key: value}
        tree = merge(tree, value)
    return tree


def resolve(file: Tree, flags: Tree) -> RunConfig:
    """The run's configuration from a config file's tree and the flags' tree.

    Raises ConfigError for an unknown or impossible setting, NotFoundError for an unknown name.
    """
    file, flags = _model_section(file), _model_section(flags)
    named = merge(file, flags)
    if "algo" not in named:
        raise ConfigError("which algorithm? add --algo NAME; `rlvr-zoo list algorithms` shows them")
    chosen = registry.algorithm(str(named["algo"]))
    model = named.get("model", {})
    start = model_preset(
        str(model.get("name") or model.get("path") or _usual_model(named) or "tiny")
    )
    protocol = str(named.get("protocol", start.get("protocol", "micro")))
    own = dict(chosen.cls.presets.get(protocol, {}))
    if bound := without(own, FREE):
        raise PluginError(
            f"{chosen.name}'s preset for {protocol} sets {', '.join(differences(bound, {}))}, which"
            " the protocol holds equal for all; remove it from the algorithm's `presets`"
        )
    layers = [
        _protocol_preset(protocol),
        start,
        own,
        {"algo": chosen.name, "protocol": protocol, "algorithm": dict(chosen.settings)},
        file,
        flags,
        {"model": {"name": start["model"]["name"]}},
    ]
    tree: Tree = {}
    for layer in layers:
        tree = merge(tree, layer)
    return _settled(tree, chosen)


def _usual_model(named: Tree) -> str:
    """The model that the protocol is made for, where it is for one."""
    if "protocol" not in named:
        return ""
    return str(_protocol_preset(str(named["protocol"])).get("model", {}).get("name", ""))


def _model_section(tree: Tree) -> Tree:
    """`model: NAME` is short for a section with that name."""
    model = tree.get("model", {})
    return tree if isinstance(model, Mapping) else {**tree, "model": {"name": str(model)}}


def _settled(tree: Tree, chosen: registry.Chosen) -> RunConfig:
    """The whole configuration, with every knob of the algorithm written out, and checked."""
    config = build(RunConfig, tree)
    settings: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    # as the folder will give it back: lists for tuples and sets
    knobs = to_jsonable_python(asdict(settings))
    config = build(RunConfig, {**tree, "algorithm": knobs})
    if config.problems.path:  # so that the run can be resumed from another folder
        path = str(Path(config.problems.path).expanduser().resolve())
        config = replace(config, problems=replace(config.problems, path=path))
    if config.rollout.replay:
        path = str(Path(config.rollout.replay).expanduser().resolve())
        config = replace(config, rollout=replace(config.rollout, replay=path))
    if config.suites.data:
        data = str(Path(config.suites.data).expanduser().resolve())
        config = replace(config, suites=replace(config.suites, data=data))
    check(config)
    return config


def resolve_again(stored: Tree, file: Tree, flags: Tree) -> RunConfig:
    """The configuration of a run that is resumed: as it was, with settings laid over it.

    Whether it may then still be resumed is for the run's folder to say.  Raises ConfigError.
    """
    over = merge(_model_section(file), _model_section(flags))
    if (algo := over.get("algo", stored.get("algo"))) != stored.get("algo"):
        raise ConfigError(
            f"the run that is resumed has --algo {stored.get('algo')}, not {algo};"
            " leave the flag out, or start anew with another --output"
        )
    return _settled(merge(stored, over), registry.algorithm(str(algo)))


def resolve_eval(model: str, flags: Tree) -> EvalConfig:
    """The configuration of an evaluation: the model's preset, and over it the flags.

    Raises ConfigError for an unknown or impossible setting, NotFoundError for an unknown name.
    """
    start: Tree = {"model": model_preset(model)["model"]}
    if run := _run_of(Path(model)):  # a run's checkpoint is measured as the run measured it
        start |= {"precision": run["train"]["precision"], "verify": run["verify"]}
    tree = merge(start, merge(flags, {"model": {"name": model}}))
    config = build(EvalConfig, tree)
    check_eval(config)
    return config
