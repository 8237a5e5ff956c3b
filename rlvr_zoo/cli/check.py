"""`rlvr-zoo check`: an algorithm against the conformance rules, or against golden cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rlvr_zoo import registry
from rlvr_zoo.errors import ConfigError, GoldenError, RlvrZooError
from rlvr_zoo.models.quiet import quiet_transformers
from rlvr_zoo.testing.report import Finding


def check_command(algo: str | None, golden: Path | None, as_json: bool) -> int:
    """Prints a line for each rule or case; 1 where one fails, else 0."""
    if algo is None and golden is None:
        raise ConfigError("check what? name an algorithm, or golden cases with --golden")
    quiet_transformers()
    findings = []
    for finding in _golden(algo, golden) if golden else _rules(str(algo)):
        findings.append(finding)
        if not as_json:
            print(finding.line(), flush=True)
    failed = sum(not finding.ok for finding in findings)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print(f"{len(findings) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _rules(algo: str) -> Iterator[Finding]:
    from rlvr_zoo.testing.conformance import check_algorithm

    yield from check_algorithm(algo)


def _golden(algo: str | None, path: Path) -> Iterator[Finding]:
    """Every case of the path that is the algorithm's; without one, of all that it names.

    A case that cannot be run is a failure, never passed over.
    """
    from rlvr_zoo.testing.golden import check_case, read_cases

    cases = read_cases(path)
    if algo is not None:
        base = algo.partition("-")[0]
        cases = [case for case in cases if case.algorithm in (algo, base) or ":" in algo]
        if not cases:
            raise GoldenError(f"{path}: holds no case of {algo!r}")
    for case in cases:
        try:
            yield check_case(registry.algorithm(algo or case.algorithm).cls, case)
        except RlvrZooError as error:
            yield Finding(case.name, ok=False, error=float("inf"), detail=str(error))
