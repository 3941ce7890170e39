"""What the file of an outbox knows besides the line: what is written when, and read again."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trio_runner._outbox import Entry
from trio_runner._outbox_sqlite._facts import (
    KnownFacts,
    found,
    is_renamed,
    run_behind,
    run_of,
    stored,
    uod_name,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import pack

PATH = Path("unit.outbox")
RUN = Entry(3, em.RunStartedMsg, pack('{"run_id":"run-1"}'), 1700000000.0)
END = Entry(5, em.RunStoppedMsg, pack('{"run_id":"run-1"}'), 1700000001.0)
SAMPLE = Entry(4, em.TagsUpdatedMsg, pack('{"run_id":"run-1"}'), 1700000000.5)

WHOLE: Mapping[str, Any] = {
    "unit": "lab_Skid",
    "numbers": 1001,
    "last_run_event": 3,
    "open_run_number": 3,
    "open_run_body": RUN.body,
    "open_run_taken_at": RUN.taken_at,
    "run_log": pack('{"log":1}'),
    "method_state": None,
    "uod_info": pack('{"uod":1}'),
    "method": None,
    "registration": pack('{"uod_name":"Skid"}'),
}
"""The facts of a file, as it has them."""


def run_log(known: KnownFacts, now: float, text: str | None) -> object:
    """Return the run log that a file gets when the outbox has this one."""
    return known.latest("lab_Skid", 1, None, {"run_log": text}, now)["run_log"]


def test_a_thousand_numbers_are_reserved_before_half_of_them_are_used() -> None:
    """Up to 501 of 1,001 no more are. The last commit gives back what was not used."""
    known = KnownFacts()
    reserved = [known.latest(None, n, None, {}, 0.0)["numbers"] for n in (1, 501, 502)]
    assert reserved == [1001, 1001, 1502]
    known.is_last = True
    assert known.latest(None, 510, None, {}, 0.0)["numbers"] == 510


def test_states_are_written_at_4000_bytes_a_second_and_for_two_minutes_ahead() -> None:
    """A write of 1,616 bytes counts as 18,000, which are 4.5 s.

    After 27 writes at 1,000 s, 121.5 s are used of the 120 s there were. The next is due 1.5 s
    later.
    """
    known, writes = KnownFacts(), 0
    while run_log(known, 1000.0, f"log {writes + 1}") == f"log {writes + 1}":
        writes += 1
        known.written({"run_log": f"log {writes}"}, {"run_log": bytes(1616)}, 1000.0)
    assert writes == 27
    assert run_log(known, 1001.4, "log 28") == "log 27"
    assert run_log(known, 1001.5, "log 28") == "log 28"


@pytest.mark.parametrize(
    ("before", "after", "is_last", "is_written"),
    [
        pytest.param("old", "new", False, False, id="it has changed"),
        pytest.param("old", None, False, True, id="the run has ended"),
        pytest.param(None, "new", False, True, id="a run has begun"),
        pytest.param("old", "new", True, True, id="the outbox is closed"),
    ],
)
def test_a_state_that_comes_or_goes_is_written_at_once(
    before: str | None, after: str | None, is_last: bool, is_written: bool
) -> None:
    """So is the last one. One that has only changed waits until it is due."""
    known = KnownFacts()
    known.written({"run_log": before}, {"run_log": bytes(1_000_000)}, 1000.0)
    known.is_last = is_last
    assert run_log(known, 1001.0, after) == (after if is_written else before)


@pytest.mark.parametrize("changed", [{"unit": "lab_Skid"}, {"run_log": None}, {"uod_info": b"1"}])
def test_only_states_of_a_run_use_up_their_rate(changed: dict[str, Any]) -> None:
    """Other facts are rare, and a state that goes costs nothing."""
    known = KnownFacts()
    known.written({"run_log": "old"}, {"run_log": bytes(4000 * 120 - 16 * 1024)}, 1000.0)
    known.written({"run_log": "old"}, changed, 1000.0)
    assert run_log(known, 1000.0, "new") == "new"  # the 120 s are used up exactly


def test_only_what_has_changed_is_written_and_long_texts_are_packed() -> None:
    """A fact that the file has not had yet is written even if it is None."""
    known = KnownFacts()
    assert known.changed({"unit": None, "run_log": '{"log":1}'}) == {
        "unit": None,
        "run_log": pack('{"log":1}'),
    }
    known.written({"unit": None, "run_log": '{"log":1}'}, {}, 0.0)
    assert known.changed({"unit": "lab_Skid", "run_log": '{"log":1}'}) == {"unit": "lab_Skid"}
    assert stored({"method": '{"lines":[]}', "unit": "lab_Skid"}) == {
        "method": pack('{"lines":[]}'),
        "unit": "lab_Skid",
    }


def test_facts_are_found_as_they_were_stored() -> None:
    """The beginning of the run that is on was sent before."""
    facts = found(WHOLE, PATH)
    assert (facts.unit, facts.numbers, facts.last_run_event) == ("lab_Skid", 1001, 3)
    assert facts.states == {em.RunLogMsg: '{"log":1}', em.UodInfoMsg: '{"uod":1}'}
    assert facts.registration == '{"uod_name":"Skid"}'
    run = facts.open_run
    assert run is not None
    assert (run.sequence_number, run.kind, run.body, run.taken_at, run.tries) == (
        3,
        em.RunStartedMsg,
        RUN.body,
        RUN.taken_at,
        1,
    )


def test_a_file_without_facts_is_new() -> None:
    """It has no unit, no run, and has given out no number."""
    facts = found({}, PATH)
    assert (facts.unit, facts.numbers, facts.last_run_event) == (None, 0, 0)
    assert (facts.open_run, facts.states, facts.registration) == (None, {}, None)


@pytest.mark.parametrize("name", ["uod_info", "method", "registration"])
def test_a_spoilt_description_is_left_out(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The engine describes itself again."""
    facts = found({**WHOLE, name: b"spoilt"}, PATH)
    assert (facts.registration is None) == (name == "registration")
    assert (em.UodInfoMsg in facts.states) == (name != "uod_info")
    assert caplog.messages == [f"The disk has damaged the {name} in the outbox unit.outbox"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"numbers": None},
        {"numbers": "1001"},
        {"unit": 1},
        {"last_run_event": "3"},
        {"open_run_number": None},
        {"open_run_body": "text"},
        {"open_run_taken_at": 1},
        {"run_log": "text"},
        {"registration": 1},
    ],
    ids=str,
)
def test_facts_of_wrong_types_are_damage(spoilt: dict[str, Any]) -> None:
    """Nothing of them is used."""
    with pytest.raises(ValueError, match="its facts are damaged"):
        found({**WHOLE, **spoilt}, PATH)


def test_the_beginning_of_a_run_that_is_not_whole_is_damage() -> None:
    """It would be sent as it lies there."""
    with pytest.raises(ValueError, match="RunStartedMsg 3 is not a message"):
        found({**WHOLE, "open_run_body": zlib.compress(b"[]")}, PATH)


@pytest.mark.parametrize(
    ("old", "new", "may_be"),
    [
        ("lab_Skid", "dhcp-17_Skid", True),
        ("lab_Skid", "dhcp_17_Skid", True),
        ("new_lab_Skid", "lab_Skid", True),
        ("lab_Skid", "lab_Other", False),
        ("Skid", "Skid", False),
    ],
)
def test_a_unit_may_be_another_only_in_its_computers_name(old: str, new: str, may_be: bool) -> None:
    """What stands after the last underscore is the name of the UOD."""
    assert is_renamed(old, new) is may_be


@pytest.mark.parametrize(
    ("registration", "name"),
    [(None, None), ("{}", None), ('{"uod_name":1}', None), ('{"uod_name":"Skid"}', "Skid")],
)
def test_a_registration_names_the_uod(registration: str | None, name: str | None) -> None:
    """It may be of another version, and have no such name."""
    assert uod_name(registration) == name


def test_the_run_after_what_waits_is_that_of_the_last_run_event() -> None:
    """If none waits, it is the one that the aggregator knows."""
    assert run_behind([], None) is None
    assert run_behind([], RUN) == "run-1"
    assert run_behind([RUN, SAMPLE], None) == "run-1"
    assert run_behind([RUN, SAMPLE, END], None) is None
    assert run_behind([SAMPLE, END], RUN) is None


def test_a_run_without_a_name_is_none() -> None:
    """Whatever version of the engine made it."""
    assert run_of(Entry(1, em.RunStartedMsg, pack('{"run_id":7}'), 0.0)) is None
