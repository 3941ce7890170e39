"""The verdict on a demo."""

from attrs import evolve

from trio_runner._cli._summary import Outage, Records, count, summarize

WHOLE = Records(
    samples_taken=["a", "b", "c"],
    samples_received=["a", "b", "c"],
    events_taken=["start", "stop"],
    events_received=["start", "stop"],
)


def test_it_is_a_success_if_everything_was_delivered() -> None:
    """All that was taken arrived: nothing is lost, and the exit code is 0."""
    summary = summarize(WHOLE)
    assert summary.exit_code == 0
    assert summary.lines == [
        "Nothing lost.",
        "samples    3 taken,   3 delivered, 0 lost",
        "events     2 taken,   2 delivered, 0 lost, in order",
    ]


def test_a_lost_sample_is_a_failure() -> None:
    """One sample that did not arrive counts as one lost, and the exit code is 1."""
    summary = summarize(evolve(WHOLE, samples_received=["a", "c"]))
    assert (summary.exit_code, summary.lost) == (1, 1)
    assert summary.lines[:2] == [
        "1 MESSAGE LOST.",
        "samples    3 taken,   2 delivered, 1 lost",
    ]


def test_a_lost_event_is_a_failure() -> None:
    """An event that did not arrive is lost too."""
    summary = summarize(evolve(WHOLE, events_received=["start"], samples_received=["a", "c"]))
    assert (summary.exit_code, summary.lines[0]) == (1, "2 MESSAGES LOST.")


def test_a_repetition_does_not_make_up_for_a_loss() -> None:
    """A sample that arrived twice counts only for itself."""
    summary = summarize(evolve(WHOLE, samples_received=["a", "a", "c"]))
    assert (summary.samples.missing, summary.samples.repeated, summary.exit_code) == (1, 1, 1)


def test_a_sample_that_was_taken_twice_must_arrive_twice() -> None:
    """Samples with equal content are counted."""
    records = evolve(WHOLE, samples_taken=["a", "a"], samples_received=["a"])
    assert summarize(records).lost == 1


def test_an_event_that_is_told_again_is_no_disorder() -> None:
    """RunStarted is told again on a new link."""
    summary = summarize(evolve(WHOLE, events_received=["start", "start", "stop"]))
    assert summary.exit_code == 0
    assert summary.lines[2] == "events     2 taken,   2 delivered, 0 lost, 1 sent again, in order"


def test_events_out_of_order_are_a_failure() -> None:
    """Events that changed places are told, and the exit code is 1."""
    summary = summarize(evolve(WHOLE, events_received=["stop", "start"]))
    assert (summary.lost, summary.exit_code) == (0, 1)
    assert summary.lines[0] == "Nothing lost, but EVENTS CAME OUT OF ORDER."


def test_what_waits_is_lost_at_the_end() -> None:
    """A demo that played to its end has no excuse for what is still in the outbox."""
    assert summarize(evolve(WHOLE, samples_received=["a"], waiting=2)).lost == 2


def test_what_waits_is_not_lost_if_the_demo_is_interrupted() -> None:
    """An interrupted demo has lost nothing if the outbox holds what is missing."""
    summary = summarize(evolve(WHOLE, samples_received=["a"], waiting=2, interrupted=True))
    assert summary.exit_code == 0
    assert summary.lines[:2] == [
        "Interrupted. Nothing lost so far, 2 messages still waiting.",
        "samples    3 taken,   1 delivered, 2 waiting",
    ]


def test_an_interruption_excuses_only_what_waits() -> None:
    """What is neither delivered nor in the outbox is lost."""
    summary = summarize(evolve(WHOLE, samples_received=["a"], waiting=1, interrupted=True))
    assert (summary.lost, summary.exit_code) == (1, 1)


def test_the_outage_and_the_plot_are_told() -> None:
    """Outage 4 to 12 s, link at 12.5 s, caught up at 14 s; the widest gap is 0.5 s."""
    records = evolve(WHOLE, outage=Outage(4, 12, 12.5, 14), plotted_s=[1, 1.2, 1.7])
    assert summarize(records).lines[3:] == [
        "outage   8.0 s; reconnected 0.5 s after it, caught up in another 1.5 s",
        "plot     3 points, longest gap 0.5 s",
    ]


def test_an_outage_that_was_cut_short_is_told_as_far_as_it_went() -> None:
    """Each step that did not happen is named."""
    assert str(Outage(4)) == "from 4.0 s to the end"
    assert str(Outage(4, 12)) == "8.0 s; not reconnected"
    assert str(Outage(4, 12, 13)) == "8.0 s; reconnected 1.0 s after it, not caught up"


def test_one_is_told_in_the_singular() -> None:
    """All numbers but one have the plural."""
    assert [count(number, "dial") for number in (0, 1, 2)] == ["0 dials", "1 dial", "2 dials"]
