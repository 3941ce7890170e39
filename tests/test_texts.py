"""Texts of others in our log and errors."""

import pytest

from trio_runner._texts import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Not Found", "Not Found"),
        ("Grüße, 数", "Grüße, 数"),
        ("a\nWARNING forged", r"a\nWARNING forged"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\u202e", r"\u202e"),  # turns the direction of writing
        (404, "404"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
        ("\n" * 60_000, (r"\n" * 100)[:197] + "..."),
    ],
)
def test_text_is_one_line_of_bounded_length(text: object, shown: str) -> None:
    """What cannot be printed is escaped, what is too long is cut."""
    assert printable(text) == shown
    assert len(printable(text)) <= 200


def test_length_can_be_given() -> None:
    """Where there is less room, less is shown."""
    assert printable("123456789", 8) == "12345..."
