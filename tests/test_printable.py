"""What a peer says, as a log shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_runner._printable import CHARS_MAX, printable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", ""),
        ("Zähler 3 läuft", "Zähler 3 läuft"),
        ("ok\n2026-01-01 ERROR forged", r"ok\n2026-01-01 ERROR forged"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("\ud800", r"\ud800"),
        ("x" * 200, "x" * 200),
        ("x" * 60_000, "x" * 197 + "..."),
        ("\n" * 60_000, r"\n" * 98 + "\\..."),
    ],
)
def test_a_text_of_a_peer_is_shown_on_one_line(said: str, shown: str) -> None:
    """Control characters are escaped, and a long text is cut to 200 characters."""
    assert printable(said) == shown


@given(st.text(max_size=400))
def test_any_text_comes_out_short_and_printable(said: str) -> None:
    """No text makes a second line, and none can fill a log."""
    shown = printable(said)
    assert shown.isprintable()
    assert len(shown) <= CHARS_MAX
    assert said.isprintable() is False or len(said) > CHARS_MAX or shown == said


def test_a_length_can_be_given_and_any_object_is_shown() -> None:
    """With less room, less is shown. An error is shown by its text."""
    assert printable("123456789", 8) == "12345..."
    assert printable(ValueError("wrong\n")) == r"wrong\n"
