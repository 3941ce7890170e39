"""Numbers as people read them."""

import pytest

from trio_runner.status._words import brief, counted, sized


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_951, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (67_108_864, "67 MB"),
        (12_000_000_000, "12 GB"),
    ],
)
def test_sizes_are_shown_in_fitting_units(number: int, text: str) -> None:
    assert sized(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 ms"), (0.0024, "2.4 ms"), (0.0312, "31 ms"), (0.9994, "999 ms"), (1.0, "1.0 s")],
)
def test_short_times_are_shown_in_fitting_units(seconds: float, text: str) -> None:
    assert brief(seconds) == text


def test_counts_are_easy_to_read() -> None:
    assert [counted(n, "message") for n in (0, 1, 1234)] == [
        "0 messages",
        "1 message",
        "1,234 messages",
    ]
