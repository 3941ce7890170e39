"""`trio_runner/DELIVERY.md`: its tests exist, and its figures are those of the code."""

import re
from pathlib import Path

from trio_runner import _again, _away, _backoff, _news, _sender, _tasks, _ticker, _warnings, _window
from trio_runner._mistakes import BLOCKED_S
from trio_runner._outbox import _entry, _line, _shrinking
from trio_runner._outbox_sqlite import _commits

ROOT = Path(__file__).parent.parent
RULES = " ".join((ROOT / "trio_runner" / "DELIVERY.md").read_text().split())


def test_each_rule_names_a_test_that_is_there() -> None:
    """It names a file of tests, or a test in one."""
    rules = re.split(r" (?=\d+\. \*\*)", RULES)[1:]
    assert [int(rule.split(".")[0]) for rule in rules] == list(range(1, 16))
    for rule in rules:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", rule)
        assert named, rule
        for file, test in named:
            text = (ROOT / file).read_text()
            assert not test or f"def {test}(" in text, test


def test_the_figures_are_those_of_the_code() -> None:
    """The pauses, the patience, the bounds, the window and the backoff are compared."""
    pauses = [_again.pause_s(failures) for failures in range(1, 22)]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert "1, 2, 4, 8, 16, 32 and then 60 s" in RULES
    assert [_again.patience(failures) for failures in range(6)] == [1, 2, 4, 8, 12, 12]
    assert "2, 4, 8, then 12 times the usual 10 s" in RULES
    # There is no pause after the last failure.
    assert sum(pauses[: _line.FAILURES_MAX - 1]) >= 15 * 60
    assert f"after {_line.FAILURES_MAX} failures, which is 15 min" in RULES
    assert sum(pauses[: _line.SAMPLE_FAILURES_MAX - 1]) >= 2 * 60
    assert f"a sample after {_line.SAMPLE_FAILURES_MAX}, which is 2 min" in RULES
    assert _line.SMALLER_AFTER_CUTS == _line.PASSED_AFTER == 3
    mib = _shrinking.LOG_CHARACTERS_MAX // 1024**2
    assert f"{_shrinking.LOG_ENTRIES_MAX:,} entries and {mib} MiB at the most" in RULES
    assert f"no more than {_window.LINE_S} s of work is put there" in RULES
    assert f"answers in a row are {_window.LATE_S} s late" in RULES
    assert (_window.LAST, _window.FRESH_S) == (4, 5)
    assert _ticker.WAITING_MAX == 2
    assert _news.STATE_REST == _sender.SAMPLES_IN_A_ROW == 4
    assert f"A state at which {_again.LEFT_OUT_AFTER} links in a row have ended" in RULES
    assert (_again.LEFT_OUT_S, _entry.SUSPECT_LINKS) == (600, 2)
    assert f"lived for {_tasks.LIVED_S} s" in RULES
    assert f"an engine's for {_commits.DISK_WAIT_S:g} s, however" in RULES
    assert _commits.WAIT_SHARE == 1 / 10
    assert _away.SUMMARY_S == 600
    assert f"thread for {BLOCKED_S} s" in RULES
    assert f"once a day, {_warnings.TOLD_MAX} of them at the most" in RULES
    shortest_s = _backoff.SHORTEST * _backoff.RHYTHM_S
    assert f"a rhythm of {shortest_s} to {_backoff.RHYTHM_S} s" in RULES
    assert f"N / {(shortest_s + _backoff.RHYTHM_S) / 2} times a second" in RULES
    assert _backoff.AWAY_PER_WAIT == 15
    assert f"turns of {_backoff.TURN_S * 1000:g} ms: {0.1 / _backoff.TURN_S:g} in 100 ms" in RULES
    assert f"not let in in time has {10 * _backoff.PATIENCE} s instead of 10" in RULES
