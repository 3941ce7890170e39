"""Tries each release of Open Pectus with both engines; prints the table of `examples/README.md`.

`python -m tests.interop.versions` takes some minutes. Releases can be named; otherwise all of
`RELEASES` are tried. The exit code is that of pytest.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import define, field

from tests.helpers.install import find_python

from ._releases import RELEASES, VARIABLE

TESTS = Path(__file__).with_name("test_versions.py")

SCENARIOS = {
    "test_a_run_survives_a_crash_of_the_aggregator": "outage",
    "test_a_killed_engine_closes_its_run": "kill",
    "test_commands_before_a_run_are_told_to_aggregators_that_know_them": "queue",
}


@define
class Outcomes:
    """The outcome of each test, for pytest to fill in."""

    of_release: dict[str, dict[str, str]] = field(factory=dict)
    """By release, and then by the test's name with its engine."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test, or that it could not begin."""
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        release, _, kind = parameters.rstrip("]").rpartition("-")
        if report.when == "call" or not report.passed:
            outcomes = self.of_release.setdefault(release, {})
            outcomes[f"{name} {kind}"] = "yes" if report.passed else report.outcome

    def table(self) -> str:
        """Return the outcomes as Markdown."""
        columns = [
            (f"{test} {kind}", f"{kind}: {scenario}")
            for kind in ("real", "simulated")
            for test, scenario in SCENARIOS.items()
        ]
        lines = ["| release | " + " | ".join(title for _, title in columns) + " |"]
        lines.append("| --- " * (1 + len(columns)) + "|")
        for release, outcomes in self.of_release.items():
            cells = [outcomes.get(name, "not tried") for name, _ in columns]
            lines.append(f"| {release} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def main(releases: list[str]) -> int:
    """Run the tests, print the table, and return the exit code."""
    os.environ[VARIABLE] = ",".join(releases or RELEASES)
    os.environ["TRIO_RUNNER_REQUIRE_INTEROP"] = "1"
    outcomes = Outcomes()
    code = pytest.main(["-q", str(TESTS)], plugins=[outcomes])
    own, theirs = sys.version_info[1], find_python()[1]
    tried = f"{datetime.now(UTC):%Y-%m-%d}, Python 3.{theirs}, the simulated engine 3.{own}:"
    sys.stdout.write(f"\n{tried}\n\n{outcomes.table()}\n")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
