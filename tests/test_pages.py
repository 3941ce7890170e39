"""The pages: what they name exists, their links lead somewhere, and their figures are counted."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.simulation.test_mutants import MUTANTS
from tests.test_layers import LAYERS
from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._marks import MARKS

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "examples/README.md",
        "examples/at_night.md",
        "examples/windows.md",
        "tests/README.md",
        "tests/bench/README.md",
        "trio_runner/ARCHITECTURE.md",
        "trio_runner/DELIVERY.md",
        "trio_runner/GLOSSARY.md",
        "trio_runner/simulation/README.md",
    )
]

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@cache
def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text()


def without_code(text: str) -> str:
    """Return a text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the headings of a page as GitHub calls them; links may lead to these."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing(page: Path, link: str) -> bool:
    """Tell whether a link of a page leads nowhere; other sites are not checked."""
    if re.match(r"https?:", link):
        return False
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return not target.is_file() or bool(anchor and anchor not in anchors(text_of(target)))


def names_in(source: str) -> set[str]:
    """Return the functions, classes, methods and constants of a module, methods as `Class.name`."""
    found = set()
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.ClassDef():
                members = [
                    n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                found |= {node.name, *(f"{node.name}.{member.name}" for member in members)}
            case ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)]):
                found.add(name)
    return found


def test_no_page_is_left_out() -> None:
    """Everything that is written for people is checked."""
    found = set(ROOT.glob("*.md"))
    for folder in ("examples", "tests", "trio_runner"):
        found |= set((ROOT / folder).rglob("*.md"))
    assert sorted(found) == sorted(PAGES)


def test_the_readme_is_short() -> None:
    """A newcomer reads it in ten minutes; everything else is in the page of its subject."""
    assert len(text_of(ROOT / "README.md").splitlines()) <= 200
    assert len(text_of(ROOT / "CONTRIBUTING.md").splitlines()) <= 40


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    """It leads to a file, and to a heading in it."""
    links = re.findall(r"\]\(([^)]+)\)", without_code(text_of(page)))
    assert [link for link in links if missing(page, link)] == []


@each_page
def test_every_name_of_code_exists(page: Path) -> None:
    """Functions are named by their path: `trio_runner/_sender.py: Sender._send_head`."""
    named = re.findall(r"`(\w[\w/]*\.py):\s+([\w.]+)`", text_of(page))
    assert [
        f"{path}: {name}" for path, name in named if name not in names_in(text_of(ROOT / path))
    ] == []


def test_the_journeys_name_their_functions() -> None:
    """Each step of both journeys names where it happens."""
    text = text_of(ROOT / "trio_runner" / "ARCHITECTURE.md")
    journeys = re.split(r"^## ", text, flags=re.MULTILINE)
    for title, steps in (("A message on its way", 11), ("A command on its way", 6)):
        (journey,) = (part for part in journeys if part.startswith(title))
        found = re.findall(r"^\d+\. .*?(?=^\d+\. |\n\n[^ ])", journey, re.MULTILINE | re.DOTALL)
        assert len(found) == steps
        assert [step for step in found if not re.search(r"`[\w/]+\.py: ", step)] == []


def test_the_layers_in_the_page_are_those_that_are_enforced() -> None:
    """The table has each module and package in the layer that `test_layers` gives it."""
    text = text_of(ROOT / "trio_runner/ARCHITECTURE.md")
    rows = re.findall(r"^\| (\d) \| [^|]+ \| (.+) \|$", text, re.MULTILINE)
    assert {name: int(n) for n, names in rows for name in re.findall(r"`(\w+)`", names)} == LAYERS


def test_the_figures_of_the_simulation_are_counted() -> None:
    """They are those of the kinds of faults, of the deliberate bugs and of the marks."""
    text = " ".join(text_of(ROOT / "trio_runner/simulation/README.md").split())
    assert f"{len(FAULTS)} kinds of faults meet it" in text
    assert f"each of {len(MUTANTS)} deliberate bugs" in text
    assert f"{len(MARKS)} marks in its code" in text


def test_every_bug_that_was_found_has_its_test() -> None:
    """The table names tests that exist."""
    text = text_of(ROOT / "trio_runner/simulation/README.md")
    named = re.findall(r"\| `(test_\w+)` \|$", text, re.MULTILINE)
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= 10
    assert [name for name in named if f"def {name}(" not in sources] == []


def test_mistakes_in_a_page_are_found() -> None:
    """They are a link to nowhere, a missing heading, and a function that was renamed."""
    page = ROOT / "README.md"
    assert missing(page, "trio_runner/NOWHERE.md")
    assert missing(page, "trio_runner/DELIVERY.md#nothing")
    assert not missing(page, "trio_runner/DELIVERY.md#what-is-guaranteed")
    assert names_in("A: int = 1\nclass B:\n    def c(self): ...") == {"A", "B", "B.c"}
