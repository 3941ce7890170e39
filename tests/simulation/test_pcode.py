"""P-code as text."""

import pytest

from trio_runner import CommandError
from trio_runner.protocol import models as mdl
from trio_runner.simulation.skid._pcode import (
    Line,
    TagReading,
    convert,
    parse,
    parse_condition,
    parse_quantity,
    walk,
)


def tree(text: str) -> Line:
    """Return the root of a method given as text, with line numbers as ids."""
    lines = enumerate(text.split("\n"))
    return parse(mdl.MethodLine(id=str(number), content=content) for number, content in lines)


def read(name: str) -> TagReading:
    """Return a tag of a small unit."""
    tags: dict[str, TagReading] = {
        "Flow": (20.0, "L/h"),
        "Run Counter": (3, None),
        "Valve": ("Feed", None),
        "Block": (None, None),
    }
    if name not in tags:
        raise CommandError(f"There is no tag '{name}'")
    return tags[name]


def test_a_line_has_a_name_and_an_argument() -> None:
    """The argument is what comes after the first colon, up to a comment."""
    (line,) = tree("Mark: at 12:30 # lunch").children
    assert (line.name, line.argument) == ("Mark", "at 12:30")
    assert line.text == "Mark: at 12:30 # lunch"


def test_blank_lines_and_comments_are_not_instructions() -> None:
    """They are left out, and the other lines keep their ids."""
    assert [line.id for line in walk(tree("\n# flush\nStop\n   \n"))] == ["2"]


def test_four_spaces_put_a_line_into_the_body_above() -> None:
    """Bodies nest, and a blank line does not end one."""
    root = tree("Block: A\n    Watch: Flow > 1 L/h\n        Mark: W\n\n    End block\nMark: B")
    block, mark = root.children
    watch, end = block.children
    assert [line.name for line in (block, watch, end, mark)] == [
        "Block",
        "Watch",
        "End block",
        "Mark",
    ]
    assert [line.id for line in watch.children] == ["2"]
    assert watch.parent is block


@pytest.mark.parametrize("text", ["   Mark: A", "    Mark: A", "Mark: A\n    Mark: B"])
def test_wrong_indentation_is_kept_as_the_lines_error(text: str) -> None:
    """Three spaces, or a body under a line that has none, show when the line is carried out."""
    last = list(walk(tree(text)))[-1]
    assert last.error is not None
    assert "indentation" in last.error


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("20 L/h", "L/h", 20.0),
        ("0.5 L/min", "L/h", 30.0),
        ("24 L/d", "L/h", 1.0),
        ("1.5min", "s", 90.0),
        (".5 h", "s", 1800.0),
        ("250 g", "kg", 0.25),
        ("150000 Pa", "bar", 1.5),
        ("500 µS/cm", "mS/cm", 0.5),
        ("-40 %", "%", -40.0),
    ],
)
def test_a_quantity_is_converted(text: str, unit: str, value: float) -> None:
    """Units of the same kind are converted into each other."""
    assert parse_quantity(text, unit) == pytest.approx(value)


@pytest.mark.parametrize("text", ["20", "L/h", "", "20 kg", "20 furlong", "1 2 L/h"])
def test_a_text_that_is_no_quantity_of_the_unit_is_refused(text: str) -> None:
    """It has no number, no unit, a unit of another kind, or an unknown unit."""
    with pytest.raises(CommandError):
        parse_quantity(text, "L/h")


def test_an_unknown_unit_fits_only_itself() -> None:
    """A unit that needs no conversion need not be known."""
    assert convert(2.0, "AU", "AU") == 2.0
    with pytest.raises(CommandError, match="'AU' does not fit"):
        convert(2.0, "AU", "bar")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Flow > 19.9 L/h", True),
        ("Flow > 20 L/h", False),
        ("Flow >= 20 L/h", True),
        ("Flow < 0.5 L/min", True),
        ("Flow <= 19 L/h", False),
        ("Flow != 20 L/h", False),
        ("Run Counter = 3", True),
        ("Run Counter == 4", False),
        ("Valve = Feed", True),
        ("Valve != Feed", False),
        ("Valve=Drain", False),
        ("Block = A", False),
        ("Block != A", True),
    ],
)
def test_a_condition_compares_a_tag(text: str, holds: bool) -> None:
    """Numbers are compared in the tag's unit, texts with = and !=."""
    assert parse_condition(text, read).holds(read) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Flow", "not a condition"),
        ("Speed > 3", "no tag 'Speed'"),
        ("Flow > 3", "not a number with a unit such as 'L/h'"),
        ("Flow > 3 kg", "The unit 'kg' does not fit"),
        ("Run Counter > x", "not a number"),
        ("Valve > Feed", "compare it with = or !="),
    ],
)
def test_a_wrong_condition_says_what_is_wrong(text: str, message: str) -> None:
    """The person at the page reads the message."""
    with pytest.raises(CommandError, match=message):
        parse_condition(text, read)
