"""The picture of a life: its lanes show what the trace says, and the page needs nothing else."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.interop._browser import Page, open_browser
from tests.status.test_page import eventually
from trio_runner.simulation.trials._lanes import Made, Span, lanes_of
from trio_runner.simulation.trials._picture import picture
from trio_runner.simulation.trials._record import Entry, Record, Second
from trio_runner.simulation.trials._simulate import simulate
from trio_runner.simulation.trials._watched_link import Key

END_OF_A, BEGIN_OF_A = ("RunStoppedMsg", "a"), ("RunStartedMsg", "a")
NO_RUN = "tags of run a, but no run is active"
ONE, TWO, THREE = ("sample", "1"), ("sample", "2"), ("sample", "3")


def entry(at_s: float, text: str, *about: Key) -> Entry:
    """Return an entry as the trace makes it, with words that are numbers as numbers."""
    words = (int(word) if word.isdigit() else word for word in text.split())
    return Entry(at_s, tuple(None if word == "None" else word for word in words), about)


def a_life() -> Record:
    """Return a life of two processes, the second of which resumes the run of the first."""
    entries = [
        entry(0, "process 1 starts"),
        entry(0, "dial"),
        entry(1, "link 1"),
        entry(1, "state Started -> Connected"),
        entry(2, "made RunStartedMsg a", BEGIN_OF_A),
        entry(2, "send 5 RunStartedMsg", BEGIN_OF_A),
        entry(2.5, "receive 5 RunStartedMsg None", BEGIN_OF_A),
        entry(3, "made sample 1", ONE),
        entry(3.5, "fault 0 reset"),
        entry(3.5, "fault 0 reset ended"),
        entry(4, "dial ended: LinkLost"),
        entry(4, "link 1 ended"),
        entry(4, "state Connected -> Failed"),
        entry(5, "fault 1 slow_disk"),
        entry(5, "made sample 2", TWO),
        entry(6, "process ends: killed"),
        entry(7, "process 2 starts"),
        entry(7, "dial"),
        entry(8, "dial ended: AggregatorUnreachable"),
        entry(9, "fault 1 slow_disk ended"),
        entry(9, "made sample 3", THREE),
        entry(9, "send 6 TagsUpdatedMsg", ONE),
        entry(9, "receive 6 TagsUpdatedMsg None", ONE),
        entry(10, "made RunStoppedMsg a", END_OF_A),
        Entry(10, ("VIOLATION", "it broke"), ()),
        Entry(
            10.5, ("receive", 7, "TagsUpdatedMsg", "tags of run a, but no run is active"), (THREE,)
        ),
        Entry(11, ("receive", 8, "RunStoppedMsg", "answered with ErrorMessage"), (END_OF_A,)),
    ]
    seconds = [
        Second(2, 0, 0, "", 100),
        Second(5.5, 2, 900, "slow", 300),
        Second(6.5, None, None, "slow", 300),
        Second(9, 2, 950, "", 350),
    ]
    return Record(entries, seconds, {TWO: "lost with its process"})


def test_each_lane_shows_what_was_on_and_how_it_ended() -> None:
    """Spans begin and end at their lines; the death of a process ends its other spans."""
    lanes = lanes_of(a_life())
    assert lanes.processes == [
        Span(0, 6, "process 1", "process", "killed"),
        Span(7, 11, "process 2", "process"),
    ]
    assert lanes.states == [
        Span(0, 1, "Started", "Started", "then Connected"),
        Span(1, 4, "Connected", "Connected", "then Failed"),
        Span(4, 6, "Failed", "Failed", "killed"),
        Span(7, 11, "Started", "Started"),
    ]
    assert lanes.links == [
        Span(0, 1, "dial", "dial"),
        Span(1, 4, "link 1", "link", "LinkLost"),
        Span(7, 8, "dial", "dial", "AggregatorUnreachable"),
    ]
    assert lanes.runs == [Span(2, 6, "a", "run", "killed"), Span(7, 10, "a", "run")]
    assert lanes.faults == [
        Span(3.5, 3.5, "reset", "network"),
        Span(5, 9, "slow_disk", "engine"),
    ]
    assert (lanes.violation, lanes.end_s) == ((10, "it broke"), 11)


def test_each_event_and_sample_is_followed_to_its_arrival() -> None:
    """It shows how often each was sent, and when it first arrived or why it did not."""
    lanes = lanes_of(a_life())
    assert lanes.events == [
        Made("RunStartedMsg", "a", 2, 2.5, 1),
        Made("RunStoppedMsg", "a", 10, None, 0),
    ]
    assert lanes.samples == [
        Made("sample", "1", 3, 9, 1),
        Made("sample", "2", 5, None, 0, "lost with its process"),
        Made("sample", "3", 9, 10.5, 0, f"without effect: {NO_RUN}"),
    ]


def test_the_levels_show_the_ages_of_what_waits_and_of_what_is_seen() -> None:
    """At 5.5 s the oldest was made at 3 s; at 9 s it has just arrived, and the next is from 9 s.

    Lost messages do not age. At 2 s the oldest is the run's beginning, which arrives at 2.5 s.
    """
    levels = lanes_of(a_life()).levels
    assert [(level.oldest_s, level.newest_s) for level in levels] == [
        (0, None),
        (2.5, None),
        (3.5, None),
        (0, 6),
    ]
    assert [(level.disk, level.written_bytes) for level in levels] == [
        ("", 100),
        ("slow", 200),
        ("slow", 0),
        ("", 50),
    ]


def lived(seed: int, duration_s: float, keep: tuple[int, ...] | None = None) -> Record:
    """Return the record of a seed's life."""
    record = Record()
    simulate(seed, duration_s, keep=keep, record=record)
    return record


def rounded(span: Span) -> tuple[float, float, str, str]:
    """Return a span with its times rounded to the millisecond."""
    return round(span.from_s, 3), round(span.to_s, 3), span.name, span.end


def test_a_seed_without_faults_has_these_lanes() -> None:
    """The lanes follow from the seed alone, to the millisecond; it samples once a second."""
    lanes = lanes_of(lived(4, 5, keep=()))
    assert [rounded(span) for span in lanes.states] == [
        (0.0, 0.019, "Started", "then Connected"),
        (0.019, 5.102, "Connected", "then Stopped"),
        (5.102, 5.11, "Stopped", "then ShutdownComplete"),
        (5.11, 5.11, "ShutdownComplete", "stopped"),
    ]
    assert [rounded(span) for span in lanes.links] == [
        (0.0, 0.011, "dial", ""),
        (0.011, 5.11, "link 1", ""),
    ]
    samples = [(s.name, round(s.made_s, 3), round(s.arrived_s or 0, 3)) for s in lanes.samples]
    assert samples == [
        ("3", 0.1, 0.102),
        ("4", 1.1, 1.101),
        ("6", 2.1, 2.103),
        ("7", 3.1, 3.101),
        ("8", 4.1, 4.103),
        ("10", 5.1, 5.102),
    ]
    assert [level.at_s for level in lanes.levels] == [1, 2, 3, 4, 5]


def test_the_lanes_of_a_stormy_life_are_those_of_its_trace(tmp_path: Path) -> None:
    """They show each change of state, link, fault and arrival of the trace, and no other."""
    record, trace = Record(), tmp_path / "trace"
    with trace.open("w") as file:
        report = simulate(5, 300, record=record, trace_file=file)
    text, lanes = trace.read_text(), lanes_of(record)
    assert [f"{e.at_s:12.6f}  {e.text}" for e in record.entries] == text.splitlines()

    def count(pattern: str) -> int:
        return len(re.findall(pattern, text, re.MULTILINE))

    assert len(lanes.faults) == sum(report.faults.values()) > 10
    assert len(lanes.processes) == report.processes
    assert len(lanes.states) == count(r"  state ") + report.processes
    assert len(lanes.links) == count(r"  dial$") + count(r"  link \d+$")
    assert (len(lanes.events), len(lanes.samples)) == (report.events, report.samples)
    missing = [one for one in (*lanes.events, *lanes.samples) if one.arrived_s is None]
    assert len(missing) >= report.lost_with_process
    assert all(one.fate for one in missing)


def test_recording_a_life_does_not_change_it() -> None:
    """A life has the same trace, to the byte, whether it is recorded or not."""
    assert simulate(2, 60, record=Record()).hash == simulate(2, 60).hash


OUTSIDE = re.compile(r"https?:|//[a-z]|\bsrc=|url\(|@import|\bimport\b|fetch\(|XMLHttp|WebSocket")


def test_the_page_refers_to_nothing_outside() -> None:
    """It contains no addresses, and no text of a life can end the data or the script."""
    record = Record([entry(0, "process 1 starts"), Entry(1, ("</script><b>",), ())])
    page = picture(record, "a life", "kept")
    # Comments in the script begin with two slashes and a space, so they do not match.
    assert OUTSIDE.findall(page) == []
    assert re.findall(r'href="([^"]*)"', page) == ["data:,"]
    assert page.count("</script>") == 2
    data = re.search(r'<script id="life" type="application/json">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])["lines"][1] == [1, "</script><b>"]


def test_a_page_of_ten_minutes_is_under_two_megabytes() -> None:
    """The picture of a usual life can be sent by mail."""
    assert len(picture(lived(3, 600), "a life", "kept").encode()) < 2e6


# In the browser


@asynccontextmanager
async def shown(
    record: Record, folder: Path, *, is_bad: bool = False
) -> AsyncGenerator[Page, None]:
    """Open the page of a life in a browser; check at the end that the browser has no complaints."""
    file = folder / "life.html"
    file.write_text(picture(record, "A title", "A verdict", is_bad=is_bad), encoding="utf-8")
    async with open_browser(folder) as page:
        await page.watch()
        await page.resize(1366, 768)
        await page.open(file.as_uri())
        await eventually(lambda: page.evaluate("typeof LANES === 'object' && LANES[0][3] > 0"))
        yield page
        assert await page.evaluate("performance.getEntriesByType('resource').length") == 0
        assert page.troubles == []


@pytest.fixture
def a_minute() -> Record:
    """Return the record of a minute, which must be simulated outside Trio."""
    return lived(3, 60)


@pytest.mark.page
@pytest.mark.timeout(120)
async def test_the_page_opens_at_its_violation(browser_folder: Path, a_minute: Record) -> None:
    """The line is picked and shown, the view is centred on it, and the browser has no complaint."""
    record = a_minute
    half = len(record.entries) // 2
    at_s = record.entries[half].at_s
    record.entries.insert(half + 1, Entry(at_s, ("VIOLATION", "it broke"), ()))
    async with shown(record, browser_folder, is_bad=True) as page:
        text = await page.text()
        assert "A verdict" in text
        assert f"{at_s:.6f}  VIOLATION it broke" in text
        assert await page.evaluate("middle()") == pytest.approx(at_s, abs=1e-5)
        assert await page.evaluate("life.lines[picked][1]") == "VIOLATION it broke"
        red = await page.evaluate(AT_THE_POLE)
        assert red == await page.evaluate("ink.bad")


AT_THE_POLE = """
(() => {
  const ratio = devicePixelRatio, x = Math.round(X(life.violation[0]) * ratio);
  const [r, g, b] = ctx.getImageData(x, 40 * ratio, 1, 1).data;
  return "#" + [r, g, b].map(v => v.toString(16).padStart(2, "0")).join("");
})()
"""
"""A script that returns the colour that the lanes have at the violation."""


@pytest.mark.page
@pytest.mark.timeout(120)
async def test_the_page_can_be_looked_at_closely(browser_folder: Path, a_minute: Record) -> None:
    """Without a violation all of it is shown; keys and wheel zoom, and a slider picks the line."""
    async with shown(a_minute, browser_folder) as page:
        wide = "view.to - view.from"
        whole = await page.evaluate(wide)
        assert whole == pytest.approx(await page.evaluate("life.end_s * 1.02"))
        assert await page.evaluate(f"{key('+')}, {wide}") == pytest.approx(0.6 * whole)
        assert await page.evaluate(f"{key('0')}, {wide}") == pytest.approx(whole)
        wheel = "canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -200, clientX: 600}))"
        assert await page.evaluate(f"{wheel}, {wide}") < whole
        assert await page.evaluate(f"{key('ArrowDown')}, {key('ArrowDown')}, picked") == 2
        slide = "$('slider').value = 100, $('slider').dispatchEvent(new Event('input'))"
        line = await page.evaluate(f"{slide}, document.querySelector('.now').textContent")
        assert line == await page.evaluate(
            "life.lines[100][0].toFixed(6).padStart(12) + '  ' + life.lines[100][1]"
        )
        tip = await page.evaluate(
            "(() => { const box = canvas.getBoundingClientRect(), lane = LANES[1];"
            " canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + X(30),"
            " clientY: box.top + lane[3] + 5})); return $('tip').textContent; })()"
        )
        assert re.match(r"\w+\n\d+\.\d{3} s to \d+\.\d{3} s: ", tip)


def key(name: str) -> str:
    """Return a script that presses a key."""
    return f"dispatchEvent(new KeyboardEvent('keydown', {{key: '{name}'}}))"
