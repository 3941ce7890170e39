"""What happens again and again is told once."""

import logging

import pytest

from trio_runner._say_once import THINGS_MAX, SayOnce

logger = logging.getLogger("said")


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]


def test_alternating_things_are_each_logged_loudly_once(caplog: pytest.LogCaptureFixture) -> None:
    """More than the last thing is remembered."""
    caplog.set_level(logging.DEBUG, "said")
    say = SayOnce(logger)
    for text in ["a", "b", "a", "b"]:
        say(logging.WARNING, "It is %s", text)
    assert loud(caplog) == ["It is a", "It is b"]
    assert len(caplog.records) == 4


def test_the_same_thing_may_have_different_words(caplog: pytest.LogCaptureFixture) -> None:
    """`about` says what counts as the same."""
    say = SayOnce(logger)
    for number in range(3):
        say(logging.ERROR, "Failed for the %d. time", number, about="failed")
    assert loud(caplog) == ["Failed for the 0. time"]


def test_what_is_forgotten_is_news_again(caplog: pytest.LogCaptureFixture) -> None:
    """This is used after a time in which all was well."""
    say = SayOnce(logger)
    for _ in range(2):
        say(logging.WARNING, "lost")
        say.forget()
    assert loud(caplog) == ["lost", "lost"]


def test_an_endless_stream_of_new_things_fills_neither_memory_nor_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A peer may make up a new text for each message."""
    say = SayOnce(logger)
    for number in range(3 * THINGS_MAX):
        say(logging.WARNING, "odd: %d", number)
    assert len(loud(caplog)) == THINGS_MAX
