"""Plain English: words that made readers stumble do not come back, in pages, docstrings and texts.

The glossary, `trio_runner/GLOSSARY.md`, has the words that are used instead.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_pages import PAGES, ROOT, each_page, text_of, without_code

PACKAGES: list[str] = ["trio_runner"]
"""Packages and modules whose texts are looked at, as "trio_runner/net" or with ".py"."""

PLACES = (
    r"behind (a|an|the|its|their|this|that) ([\w']+ )?(proxy|proxies|firewall|server|gateway)",
    r"(left|leave|leaves|leaving|fall|falls|fell|falling|stay|stays|lag|lags) \w* ?behind",
    r"in line behind",
)
"""Where "behind" is a place, and not "after"."""

BARE_WHO = (
    r"(?:^|[.:;!?] |\| )Who(?:ever)? (?!(?:is|are|was|may|can|needs|does|did)\b[^.]*\?)\w+",
    r"\b(?:of|than|as|for|to|by|and|but) who(?:ever)? (?!(?:is|are)\b)\w+s\b",
)
"""A subject without a person: "Who sends ...", "for who reads ..."."""

RULES = (
    ("shall", r"\bshall\b"),
    ("oftener", r"\boftener\b"),
    ('"behind" for "after"', r"\bbehind\b"),
    ('"who" without a person', "|".join(BARE_WHO)),
)


def faults(text: str) -> list[str]:
    """Return the words in a text that its readers stumble over, with what stands around them."""
    text = re.sub(r"`[^`]*`", "`code`", " ".join(text.split()))
    for place in PLACES:
        text = re.sub(place, "there", text, flags=re.IGNORECASE)
    return [
        f"{name}: ...{text[max(0, found.start() - 30) : found.end() + 30]}..."
        for name, pattern in RULES
        for found in re.finditer(pattern, text, re.IGNORECASE if "who" not in name else 0)
    ]


def texts(source: str) -> Iterator[str]:
    """Yield the docstrings of a module, and each string with a blank, which users may see."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=str(text)) if " " in text:
                yield text


def modules() -> Iterator[Path]:
    """Yield the modules that are looked at."""
    for name in PACKAGES:
        path = ROOT / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


@each_page
def test_a_page_is_in_plain_english(page: Path) -> None:
    """Its paragraphs, lists and tables."""
    text = without_code(text_of(page))
    assert [fault for part in re.split(r"\n\n|\n(?=[|#-])", text) for fault in faults(part)] == []


def test_docstrings_and_what_users_see_are_in_plain_english() -> None:
    """Those of the packages that have been gone through."""
    found = {
        path.relative_to(ROOT).as_posix(): bad
        for path in modules()
        if (bad := [f for text in texts(path.read_text()) for f in faults(text)])
    }
    assert found == {}


def test_a_module_gives_its_docstrings_and_texts() -> None:
    """Strings without a blank are names, and the parts of an f-string count each by itself."""
    source = '"""Send it."""\nlogger.info(f"{n} sent behind {m}", "the name", "name")'
    assert list(texts(source)) == ["Send it.", "the name", " sent behind "]


@pytest.mark.parametrize(
    "text",
    [
        "Nothing shall follow on this link.",
        "It is dialled oftener.",
        "Who sets it calls `commit` then.",
        "The end comes behind all that waits.",
        "It raises OutboxClosed behind `close`.",
        "An error for who reads it.",
        "It ends. Whoever finds its messages needs it.",
    ],
)
def test_what_readers_stumble_over_is_found(text: str) -> None:
    """Each of the words, as it stood in this project once."""
    assert len(faults(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The aggregator stands behind a proxy, or behind the company's firewall.",
        "A handler that hangs is left behind, and a side falls behind.",
        "The people who read it.",
        "Who is it? It tells who has to let the engine through.",
        "Ask who runs it.",
    ],
)
def test_what_is_plain_is_left_alone(text: str) -> None:
    """Places, people and questions."""
    assert faults(text) == []


TESTS = ("tests", "examples")
"""Folders with tests, whose docstrings and names are looked at."""


def names_and_docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings of a module, and the names of its tests as sentences."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test_"):
                    yield name.removeprefix("test_").replace("_", " ").capitalize()


def test_tests_and_examples_are_in_plain_english() -> None:
    """Only this module may name the words."""
    paths = {path for folder in TESTS for path in (ROOT / folder).rglob("*.py")}
    found = {
        path.relative_to(ROOT).as_posix(): bad
        for path in sorted(paths - {Path(__file__)})
        if (bad := [f for text in names_and_docstrings(path.read_text()) for f in faults(text)])
    }
    assert found == {}


def test_a_module_of_tests_gives_its_names_and_docstrings() -> None:
    """A name reads as a sentence, with a capital letter."""
    source = 'def test_who_sends_waits():\n    """It waits."""\nasync def other(): ...'
    assert list(names_and_docstrings(source)) == ["Who sends waits", "It waits."]


def test_there_are_pages_to_check() -> None:
    """And there are some."""
    assert len(PAGES) > 10
