"""What is judged to be well, worth a warning, and worth a person's sleep."""

import pytest

from tests.status.known import known
from trio_runner import Statistics
from trio_runner.status._verdict import Facts, Level, Reason, judge, worst

ALARM_S = 300.0


def judged(
    statistics: Statistics | None,
    *,
    failed: str | None = None,
    known_for_s: float = 3600.0,
    thinned_ago_s: float | None = None,
) -> list[Reason]:
    return judge(Facts(known_for_s, failed, statistics, thinned_ago_s), ALARM_S)


def test_a_unit_in_steady_state_is_well() -> None:
    """Nothing is said about it, whatever it has been through."""
    assert judged(known(state="Reconnected", last_failure="It was away.", links=7)) == []


@pytest.mark.parametrize(
    ("away_s", "level"), [(0.5, "warning"), (300.0, "warning"), (300.1, "critical")]
)
def test_an_outage_becomes_critical_with_the_alarm(away_s: float, level: Level) -> None:
    """What waits is kept, so for the first 300 s nobody needs to get up."""
    unit = known(state="Disconnected", away_for_s=away_s, last_failure="It is not there.")
    (reason,) = judged(unit)
    assert reason.level == level
    assert reason.text.startswith("no link to the aggregator for ")
    assert reason.text.endswith(": It is not there.")


def test_catching_up_is_a_warning_however_long_the_outage_was() -> None:
    """Data flows, and the aggregator lacks only what still waits."""
    unit = known(state="CatchingUp", away_for_s=4000.0, outbox={"waiting": 1234})
    assert judged(unit) == [Reason("warning", "catching up, 1,234 messages to go")]


@pytest.mark.parametrize(("ago_s", "is_told"), [(0.0, True), (300.0, True), (300.1, False)])
def test_samples_given_up_are_told_for_as_long_as_the_alarm(ago_s: float, is_told: bool) -> None:
    """The health returns by itself when nothing more is given up."""
    reasons = judged(known(outbox={"thinned": 12}), thinned_ago_s=ago_s)
    assert [reason.level for reason in reasons] == ["critical"] * is_told
    assert all(reason.text.startswith("12 samples given up so far") for reason in reasons)


def test_a_disk_that_fails_is_critical_and_says_why() -> None:
    """What waits would be lost with the process."""
    (reason,) = judged(known(outbox={"degraded": "No space left on device"}))
    assert reason == Reason("critical", "what waits is in memory only: No space left on device")


def test_a_message_set_aside_is_critical_and_says_where_to_look() -> None:
    """The aggregator will never have it unless a person acts."""
    (reason,) = judged(known(outbox={"set_aside": 1}))
    assert reason.level == "critical"
    assert reason.text.startswith("1 message set aside for good: `trio-runner outbox show`")


def test_a_unit_that_failed_is_critical_whatever_its_runner_says() -> None:
    """Its reason is told, whether or not it has had a runner."""
    expected = [Reason("critical", "it has failed: no hardware")]
    assert judged(None, failed="no hardware") == expected
    assert judged(known(state="ShutdownComplete"), failed="no hardware") == expected


@pytest.mark.parametrize(("for_s", "level"), [(3.0, "warning"), (301.0, "critical")])
def test_a_unit_that_does_not_come_up_becomes_critical(for_s: float, level: Level) -> None:
    """Hardware that takes a while is no alarm; hardware that never answers is one."""
    assert [reason.level for reason in judged(None, known_for_s=for_s)] == [level]


def test_a_runner_that_has_ended_is_critical_but_one_being_stopped_is_not() -> None:
    """Stopping takes seconds and is somebody's will; after the end nothing is sent any more."""
    assert [r.level for r in judged(known(state="Stopped", away_for_s=400.0))] == ["warning"]
    assert [r.level for r in judged(known(state="ShutdownComplete"))] == ["critical"]


def test_the_worst_reason_comes_first() -> None:
    """Monitoring shows one line."""
    unit = known(state="Failed", away_for_s=3.0, outbox={"set_aside": 2})
    assert [reason.level for reason in judged(unit)] == ["critical", "warning"]
    assert worst(["ok", "critical", "warning"]) == "critical"
    assert worst([]) == "ok"
