"""From presets, a file and flags to one configuration, and the digest of what must be equal."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

import pytest

from rlvr_zoo.config import OptimizerConfig, RunConfig
from rlvr_zoo.errors import ConfigError, NotFoundError, PluginError
from rlvr_zoo.protocol import Tree, differences, digest, protocol_of
from rlvr_zoo.resolve import (
    merge,
    model_preset,
    parse_set,
    presets,
    read_file,
    resolve,
)
from rlvr_zoo_algorithms.grpo import GRPO
from rlvr_zoo_algorithms.popo import POPO

MICRO_LR = presets("protocols")["micro"]["optimizer"]["lr"]


@pytest.fixture(autouse=True)
def scan_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the entry points of all that is installed is half of the time, and done 4 times."""
    monkeypatch.setattr("rlvr_zoo.registry.entry_points", scanned)


@cache
def scanned(group: str) -> EntryPoints:
    return entry_points(group=group)


def run(*settings: str, algo: str = "grpo", file: Tree | None = None) -> RunConfig:
    """As `rlvr-zoo run --algo grpo --set ...` resolves it."""
    return resolve(file or {}, merge(parse_set(settings), {"algo": algo}))


settled = cache(run)
"""The same, each once: for tests that change nothing that decides it."""


def refusal(*settings: str, algo: str = "grpo", file: Tree | None = None) -> str:
    with pytest.raises((ConfigError, NotFoundError)) as caught:
        run(*settings, algo=algo, file=file)
    text = str(caught.value)
    assert "\n" not in text  # the command line prints one line
    return text


# --------------------------------------------------------------------------- who wins


def test_the_protocols_preset_is_laid_on_the_defaults() -> None:
    config = run()
    assert (config.protocol, config.model.name, config.seed) == ("micro", "tiny", 0)
    assert config.optimizer.lr == MICRO_LR != OptimizerConfig().lr
    assert config.optimizer.beta2 == 0.999  # of config.py alone
    assert config.algorithm["kl_coef"] == 0.04  # the algorithm's own default


def test_file_wins_over_preset_and_flags_over_file() -> None:
    file: Tree = {"optimizer": {"lr": 0.25, "eps": 0.5}, "seed": 7}
    config = run("optimizer.lr=0.75", "evaluate.every=3", file=file)
    assert config.optimizer.lr == 0.75  # preset < file 0.25 < flag
    assert config.optimizer.eps == 0.5 and config.seed == 7
    assert config.evaluate.every == 3
    assert config.rollout.max_completion_tokens == 12  # still the preset's


def test_algo_and_protocol_may_come_from_the_file() -> None:
    config = resolve({"algo": "popo", "protocol": "math-7b"}, {})
    assert (config.algo, config.protocol, config.train.max_steps) == ("popo", "math-7b", 1500)
    assert resolve({"algo": "popo"}, {"algo": "grpo"}).algo == "grpo"
    with pytest.raises(ConfigError, match="--algo"):
        resolve({}, {})


def test_the_models_preset_picks_its_protocol() -> None:
    config = run("model.name=qwen-math-7b")
    assert config.protocol == "math-7b" and config.model.path == "Qwen/Qwen2.5-Math-7B"
    assert config.optimizer.lr == 1e-7 and config.model.chat == "always"
    config = run("model.name=qwen-math-7b", "protocol=micro")
    assert config.protocol == "micro" and config.optimizer.lr == MICRO_LR


def test_a_file_may_name_the_model_in_one_word() -> None:
    assert run(file={"model": "qwen-math-7b"}) == run("model.name=qwen-math-7b")


def test_a_models_settings_are_laid_on_its_preset() -> None:
    config = run("model.max_context_tokens=99", "model.name=qwen-math-7b")
    assert (config.model.max_context_tokens, config.model.prompt) == (99, "{problem}")


def test_one_word_and_section_of_a_model_mix() -> None:
    want = run("model.name=qwen-math-7b", "model.max_context_tokens=99")
    assert run("model.max_context_tokens=99", file={"model": "qwen-math-7b"}) == want  # trains tiny
    file: Tree = {"model": {"name": "tiny", "max_context_tokens": 99}}
    assert run("model=qwen-math-7b", file=file) == want  # loses the 99


def test_the_flags_model_wins_over_the_files_one_word() -> None:
    assert run("model.name=tiny", file={"model": "qwen-math-7b"}) == run("model.name=tiny")


@pytest.mark.parametrize("model", presets("models"))
@pytest.mark.parametrize("protocol", presets("protocols"))
@pytest.mark.parametrize("algo", ["grpo", "popo"])
def test_every_preset_resolves(model: str, protocol: str, algo: str) -> None:
    config = settled(f"model.name={model}", f"protocol={protocol}", algo=algo)
    assert (config.algo, config.model.name, config.protocol) == (algo, model, protocol)


@pytest.mark.parametrize(("name", "settings"), POPO.variants.items())
def test_every_ablation_resolves(name: str, settings: Tree) -> None:
    plain = settled(algo="popo").algorithm
    assert settled(algo=f"popo-{name}").algorithm == {**plain, **settings} != plain


def test_popos_own_settings_of_the_7b_run() -> None:
    knobs = settled("protocol=math-7b", algo="popo").algorithm  # ALGORITHMS.md, the 7B run
    assert (knobs["momentum"], knobs["feature_noise_std"]) == (0.999, 0.01)
    assert (knobs["predictor_hidden_size"], knobs["similarity_coef"]) == (4096, 0.1)
    knobs = settled(algo="popo").algorithm
    assert (knobs["momentum"], knobs["feature_noise_std"]) == (0.995, 0.02)
    assert knobs["predictor_hidden_size"] == 1024


# --------------------------------------------------------------------------- algorithms' presets


def test_an_algorithms_preset_is_for_one_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"optimizer": {"lr": 0.5}, "algorithm": {"kl_coef": 0.0, "std_eps": 0.125}}
    monkeypatch.setattr(GRPO, "presets", {"micro": own})
    config = run("optimizer.eps=0.25")
    assert config.optimizer.lr == 0.5 and config.optimizer.eps == 0.25
    assert (config.algorithm["kl_coef"], config.algorithm["std_eps"]) == (0.0, 0.125)
    assert run("protocol=math-7b").optimizer.lr == 1e-7
    assert run(algo="popo").optimizer.lr == MICRO_LR
    # the file and the flags are the user's: they win
    assert run("optimizer.lr=0.75", file={"algorithm": {"std_eps": 0.5}}).algorithm == {
        **config.algorithm,
        "std_eps": 0.5,
    }


def test_a_variant_wins_over_its_algorithms_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"algorithm": {"momentum": 0.5, "similarity_coef": 0.25}}
    monkeypatch.setattr(POPO, "presets", {"micro": own})
    config = run(algo="popo-frozen")
    assert config.algorithm["momentum"] == 1.0 and config.algorithm["similarity_coef"] == 0.25
    assert run("algorithm.momentum=0.75", algo="popo-frozen").algorithm["momentum"] == 0.75


def test_an_algorithms_preset_cannot_change_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"rollout": {"temperature": 0.5, "group_size": 4}}
    monkeypatch.setattr(GRPO, "presets", {"micro": own})
    with pytest.raises(PluginError, match="grpo's preset for micro sets rollout"):
        run()


# --------------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("setting", "tree"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=x", {"a": {"b": {"c": "x"}}}),
        ("a=[1, x, 2.5]", {"a": [1, "x", 2.5]}),
        ("a=true", {"a": True}),
        ("a='true'", {"a": "true"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=x y", {"a": "x y"}),
        ("a=-0.5", {"a": -0.5}),
        ("a={problem}", {"a": "{problem}"}),  # text, not a mapping: prompts hold braces
    ],
)
def test_set_reads_values_as_yaml(setting: str, tree: Tree) -> None:
    assert parse_set([setting]) == tree


def test_a_prompt_may_begin_with_the_problem() -> None:
    assert parse_set(["model.prompt={problem} Think!"]) == {"model": {"prompt": "{problem} Think!"}}


def test_later_settings_win_and_sections_grow_together() -> None:
    assert parse_set(["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001"])
def test_scientific_notation_is_a_number(text: str) -> None:
    # YAML reads 1e-3 as a string
    assert run(f"optimizer.lr={text}").optimizer.lr == 0.001
    assert run(f"algorithm.std_eps={text}").algorithm["std_eps"] == 0.001
    assert run(file={"optimizer": {"lr": text}}).optimizer.lr == 0.001


@pytest.mark.parametrize("bad", ["seed", "=1", ".seed=1", "rollout.=1", "a..b=1", ""])
def test_a_setting_without_key_or_equals_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"write it as key\.path=value"):
        parse_set([bad])


def test_a_setting_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set seed=\[1: the value is not YAML"):
        parse_set(["seed=[1"])


# --------------------------------------------------------------------------- the file


def test_a_file_is_read_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("algo: popo\nrollout: {group_size: 4}\n")
    assert read_file(path) == {"algo": "popo", "rollout": {"group_size": 4}}
    path.write_text("# nothing yet\n")
    assert read_file(path) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"- 1\n", "holds no settings"), (b"a: [1\n", "not YAML"), (b"\xff\xfe\x00", "run.yaml")],
)
def test_a_file_without_settings_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="nowhere"):
        read_file(tmp_path / "nowhere.yaml")


# --------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("sede=1", "unknown setting 'sede': did you mean 'seed'?"),
        ("rolout.group_size=2", "unknown setting 'rolout': did you mean 'rollout'?"),
        ("rollout.groupsize=2", "unknown setting 'rollout.groupsize': did you mean 'group_size'?"),
        ("algorithm.kl_coeff=1", "'algorithm.kl_coeff': did you mean 'kl_coef'?"),
        ("algorithm.zzz=1", "known: aggregate, clip_high, clip_low, kl_coef, std_eps"),
        ("algo=grop", "unknown algorithm 'grop': did you mean 'grpo'"),
        ("protocol=mirco", "unknown protocol 'mirco': did you mean 'micro'?"),
        ("model.name=tyni", "unknown model 'tyni': no preset, no folder, no hub name"),
        ("model=quen-math-7b", "did you mean 'qwen-math-7b'"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(setting: str, says: str) -> None:
    with pytest.raises((ConfigError, NotFoundError)) as caught:
        resolve({}, merge({"algo": "grpo"}, parse_set([setting])))
    assert says in str(caught.value)


def test_a_models_name_may_be_a_folder_or_the_hubs(tmp_path: Path) -> None:
    config = run(f"model.name={tmp_path}")
    assert (config.model.name, config.model.path) == (str(tmp_path), str(tmp_path))
    config = run("model.name=Qwen/Qwen3-0.6B")
    assert (config.model.path, config.protocol) == ("Qwen/Qwen3-0.6B", "micro")
    assert "no folder" in refusal(f"model.name={tmp_path}/nowhere")
    assert "no folder" in refusal("model.name=./nowhere")


def test_an_empty_model_name_is_refused() -> None:
    with pytest.raises(NotFoundError):
        model_preset("")


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["seed=1.5"], "seed=1.5: "),
        (["train.max_steps=many"], "train.max_steps='many': "),
        (["optimizer.schedule=linear"], "optimizer.schedule='linear': "),
        (["algorithm.kl_coef=much"], "algorithm.kl_coef='much': "),
        (["algorithm.kl_coef=-1"], "algorithm.kl_coef=-1.0: set 0 or more"),
        (["algorithm.aggregate=sum"], "algorithm.aggregate='sum': "),
        (["algorithm=3"], "algorithm=3: "),
        (["rollout=3"], "rollout=3: a section of settings is wanted here"),
        (["rollout.temperature=0"], "rollout.temperature=0.0: set more than 0"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1.0: set 0 or more"),
        (["rollout.group_size=1"], "rollout.group_size=1: grpo needs at least 2 rollouts"),
        (["rollout.group_size=0"], "rollout.group_size=0: set more than 0"),
        (["rollout.group_size=12"], "not a multiple of rollout.group_size=12; set it to 120"),
        (["rollout.rollouts_per_step=4"], "not a multiple of rollout.group_size=8; set it to 8"),
        (["train.minibatches=17"], "train.minibatches=17: a step has only 16 groups"),
        (["evaluate.top_p=1.5"], "evaluate.top_p=1.5: set 1 or less"),
        (["evaluate.num_samples=4"], "evaluate.num_samples=4: greedy samples"),
        (["model.prompt=solve it"], "holds no {problem}"),
    ],
)
def test_values_that_cannot_work_are_refused(settings: list[str], says: str) -> None:
    assert says in refusal(*settings)


def test_values_at_the_edge_are_taken() -> None:
    run("rollout.group_size=2", "rollout.rollouts_per_step=2", "evaluate.top_p=1")
    run("evaluate.num_samples=4", "evaluate.temperature=0.7", "train.minibatches=16")


@pytest.mark.parametrize(
    "setting",
    ["lr=.nan", "lr=.inf", "max_grad_norm=.nan", "beta1=1.5", "eps=-1", "warmup_fraction=2"],
)
def test_optimizer_settings_that_cannot_work_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError):
        run(f"optimizer.{setting}")


# --------------------------------------------------------------------------- the protocol


def protocol_digest(*settings: str, algo: str = "grpo") -> str:
    return digest(protocol_of(settled(*settings, algo=algo)))


@pytest.mark.parametrize(
    "free",
    [
        "algorithm.kl_coef=0",
        "optimizer.lr=0.5",
        "rollout.group_size=4",
        "seed=5",
        "train.micro_batch_tokens=99",
        "checkpoint.every=1",
        "track.mlflow=false",
        "verify.num_workers=1",
        "rollout.vllm.servers=[http://a:8000]",
        "rollout.vllm.gpu_memory_share=0.5",
    ],
)
def test_what_an_algorithm_may_choose_leaves_the_protocol_equal(free: str) -> None:
    assert protocol_digest(free) == protocol_digest()
    assert settled(free) != settled()


def test_algorithms_share_a_protocol() -> None:
    assert protocol_digest(algo="popo-uniform") == protocol_digest(algo="grpo")


@pytest.mark.parametrize(
    "bound",
    [
        "rollout.temperature=0.5",
        "rollout.max_completion_tokens=13",
        "rollout.rollouts_per_step=64",
        "problems.num_held_out=16",
        "problems.hub=a/b",
        "model.prompt='Q: {problem}'",
        "optimizer.weight_decay=0.5",
        "train.max_steps=99",
        "verify.timeout_s=1",
        "evaluate.temperature=0.5",
    ],
)
def test_whatever_else_differs_is_another_protocol(bound: str) -> None:
    assert protocol_digest(bound) != protocol_digest()
    key = bound.partition("=")[0]
    assert differences(protocol_of(settled(bound)), protocol_of(settled())) == [key]


def test_an_engines_settings_bind_where_it_is_used() -> None:
    vllm, half = "rollout.engine=vllm", "rollout.vllm.dtype=bfloat16"
    assert protocol_digest(half) == protocol_digest()
    assert protocol_digest(vllm) != protocol_digest()
    assert protocol_digest(vllm, half) != protocol_digest(vllm)
    assert protocol_digest(vllm, "rollout.vllm.max_num_seqs=8") == protocol_digest(vllm)


def test_digest_is_of_canonical_json() -> None:
    # printf '{"a":[1,true],"b":"x"}' | sha256sum
    assert digest({"b": "x", "a": [1, True]}) == "840356ff5ef24566"
    assert digest({"a": [True, 1], "b": "x"}) != "840356ff5ef24566"


def test_differences_are_dotted_keys_in_order() -> None:
    a: dict[str, Any] = {"z": 1, "b": {"y": 1, "x": {"w": 1}}, "same": {"k": [1]}, "only_a": 1}
    b: dict[str, Any] = {"z": 2, "b": {"y": 2, "x": {"w": 2}}, "same": {"k": [1]}, "only_b": 2}
    assert differences(a, b) == ["b.x.w", "b.y", "only_a", "only_b", "z"]
    assert differences(a, a) == []


def test_merge_leaves_its_arguments_alone() -> None:
    base: Tree = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 9}, "d": {"e": 1}}) == {"a": {"b": 9, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
