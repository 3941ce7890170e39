"""README and the pages beside it: their code runs, and their figures are those of the code."""

import os
import re
import runpy
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import attrs
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

from tests.interop._releases import OLDEST_AND_NEWEST
from trio_runner import Timing
from trio_runner._states import diagram

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPTIONS = ROOT / "examples" / "README.md"
SIMULATION = ROOT / "trio_runner" / "simulation" / "README.md"


def blocks(page: Path) -> list[str]:
    """Return the blocks of Python in a page."""
    return [
        example.parsed for example in Sybil([CodeBlockParser("python", str)]).parse(page).examples()
    ]


def test_the_diagram_is_drawn_from_the_edges() -> None:
    """The Mermaid block is what diagram() returns."""
    assert f"```mermaid\n{diagram()}\n```" in README


def test_the_table_of_times_agrees_with_the_code() -> None:
    """Each time is in the table with its default, and the table has no other."""
    rows = re.findall(r"^\| `(\w+_s)` \| ([\d.]+) \|", OPTIONS.read_text(), re.MULTILINE)
    assert {name: float(value) for name, value in rows} == attrs.asdict(Timing())


def test_the_commands_are_those_that_ci_runs() -> None:
    """`.ci/run` runs the two commands of the README, step for step."""
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("bin/pip install .", "bin/trio-runner demo", "bin/pip install -e '.[test]'"):
        assert command in README
        assert re.sub(r"^bin/", "", command) in ci


def test_ci_runs_what_the_readme_says() -> None:
    """It contains what the README says it runs, and not what the README says it leaves out."""
    ci = (ROOT / ".ci" / "run").read_text()
    for command in (
        "ruff check .",
        "mypy --strict --platform win32 trio_runner",
        "twine check",
        ".venv-ci/bin/pytest",
        "tests/bridge tests/cli/test_engine.py tests/runner",
        "openpectus.test.integration",
        "== quick ",
    ):
        assert command in ci
    assert "tests.bench" not in ci
    assert "tests.interop.versions" not in ci
    for file, test in re.findall(r"--deselect (\S+)::(\w+)", ci):
        assert f"def {test}(" in (ROOT / file).read_text(), test
    oldest, newest = OLDEST_AND_NEWEST
    assert f"aggregators of openpectus {oldest} and {newest}" in " ".join(README.split())


def test_the_example_of_a_test_passes() -> None:
    """The block runs, in virtual time, and asserts what it says."""
    (outage, _) = blocks(SIMULATION)
    exec(outage, {})  # noqa: S102


def test_the_example_of_a_storm_passes() -> None:
    """The bath of the example lives through a minute of it, as the page says."""
    namespace = runpy.run_path(str(ROOT / "examples" / "embed_engine.py"))
    (_, storm) = blocks(SIMULATION)
    exec(storm.replace("seed=7", "seed=7, duration_s=60"), namespace)  # noqa: S102
    namespace["test_the_bath_lives_through_a_storm"]()


def test_the_example_of_a_durable_outbox_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block makes the file and leaves nothing open."""
    monkeypatch.chdir(tmp_path)
    (durable,) = blocks(OPTIONS)
    exec(durable, {})  # noqa: S102
    assert (tmp_path / "skid.outbox").exists()


def test_the_example_of_embedding_runs(tmp_path: Path) -> None:
    """Pasted into a file, it starts, meets no aggregator, and says so."""
    (embedding,) = blocks(ROOT / "README.md")
    program = tmp_path / "pasted.py"
    program.write_text(embedding.replace("9800", "1"))
    command = [sys.executable, "-u", str(program)]
    search = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with Popen(command, cwd=tmp_path, env=search, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.kill()
    assert first.startswith("Started -> Failed: ")
