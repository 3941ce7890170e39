"""The page that people look at: complete without a script, kept live by one."""

import base64
import hashlib
import platform
import time
from collections.abc import Iterator
from datetime import datetime
from html import escape

from trio_runner import Statistics
from trio_runner._away import duration
from trio_runner.status._board import POINTS_MAX, Progress, Sight
from trio_runner.status._plot import plot
from trio_runner.status._style import SCRIPT, STYLE
from trio_runner.status._verdict import LEVELS, Level, is_away, worst
from trio_runner.status._words import brief, counted, sized


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)};"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""What a browser may allow the page: nothing that is not part of it or from the same server."""

MARKS: dict[Level, str] = {"ok": "✓", "warning": "!", "critical": "✗"}
"""Marks for the levels, so that colour is not the only sign."""


def page(sights: list[Sight]) -> str:
    """Return the whole page."""
    level = worst(sight.level for sight in sights)
    sights = sorted(sights, key=lambda sight: -LEVELS.index(sight.level))
    host = escape(platform.node())
    now = _clock(time.time())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{_title(sights, level)} - {host}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{STYLE}</style>
<noscript><meta http-equiv="refresh" content="10"></noscript></head>
<body><div id="stale" role="alert" hidden></div><main>
<header><h1 class="{level}">{MARKS[level]} {_title(sights, level)}</h1>
<p class="soft">on {host} at {now:%H:%M:%S}</p></header>
<div class="units">{"".join(_unit(sight) for sight in sights)}</div>
</main><script>{SCRIPT}</script></body></html>
"""


def _title(sights: list[Sight], level: Level) -> str:
    bad = sum(sight.level == level for sight in sights)
    if level == "ok":
        return "All is well" if len(sights) > 1 else "OK"
    what = {"warning": "Warning", "critical": "Critical"}[level]
    return f"{what}: {bad} of {counted(len(sights), 'unit')}" if len(sights) > 1 else what


def _unit(sight: Sight) -> str:
    known = sight.statistics
    parts = [_top(sight), _reasons(sight)]
    if known is not None:
        parts += [_progress(sight.progress), _figures(known), _plots(sight)]
        parts += [_past(known), _ids(known)]
    return f'<article class="{sight.level}">{"".join(parts)}</article>'


def _top(sight: Sight) -> str:
    return (
        f'<div class="top"><h2>{escape(sight.name)}</h2>'
        f'<p class="state {sight.level}">{MARKS[sight.level]} {_state(sight)}</p></div>'
    )


def _state(sight: Sight) -> str:
    if sight.failed is not None:
        return "failed"
    if sight.statistics is None:
        return "starting"
    known = sight.statistics
    if not is_away(known):
        since = _since("since", known.state_for_s)
    else:  # the states change with each dial
        since = _since("no link since", known.away_for_s or 0)
    return f'{known.state} <span class="soft">{since}</span>'


def _since(words: str, seconds: float) -> str:
    began = _clock(time.time() - seconds)
    form = "%H:%M:%S" if began.date() == _clock(time.time()).date() else "%d %b %H:%M"
    return f"{words} {began:{form}}, {duration(seconds)}"


def _clock(at: float) -> datetime:
    """Return an instant (s since the epoch) in this computer's local time."""
    return datetime.fromtimestamp(at)


def _reasons(sight: Sight) -> str:
    items = (f'<li class="{reason.level}">{escape(reason.text)}</li>' for reason in sight.reasons)
    return f"<ul>{''.join(items)}</ul>" if sight.reasons else ""


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    whole = max(1, progress.done + progress.left)
    text = f"{progress.done:,} of {counted(whole, 'message')} caught up"
    return (
        f'<div><h3>{text}</h3><progress max="{whole}" value="{progress.done}">'
        f"{progress.done * 100 // whole} %</progress></div>"
    )


def _figures(known: Statistics) -> str:
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _rows(known))
    return f"<dl>{rows}</dl>"


def _rows(known: Statistics) -> Iterator[tuple[str, str]]:
    outbox = known.outbox
    yield "waiting", f"{outbox.waiting:,}"
    yield "oldest", duration(outbox.oldest_s) if outbox.oldest_s is not None else "-"
    yield f"outbox, of {sized(outbox.bytes_max)}", sized(outbox.bytes_waiting)
    yield "delivered", f"{outbox.delivered:,}"
    yield "sent", sized(known.bytes_sent)
    yield "links (dials)", f"{known.links:,} ({known.dials:,})"
    if outbox.thinned:
        yield "given up", f"{outbox.thinned:,}"
    if outbox.set_aside:
        yield "set aside", f"{outbox.set_aside:,}"


def _plots(sight: Sight) -> str:
    waiting = [float(point.waiting) for point in sight.history]
    answers = [point.answer_s for point in sight.history]
    known = [answer for answer in answers if answer is not None]
    most = f"at most {max(waiting):,.0f}" if waiting else ""
    slowest = f"at most {brief(max(known))}" if known else "none"
    return (
        '<div class="plots">'
        f'<div><div class="plot"><h3>waiting, last hour</h3><h3>{most}</h3></div>'
        f"{plot(waiting, POINTS_MAX, 'one')}</div>"
        f'<div><div class="plot"><h3>time to an answer, last hour</h3><h3>{slowest}</h3></div>'
        f"{plot(answers, POINTS_MAX, 'two')}</div></div>"
    )


def _past(known: Statistics) -> str:
    """Return the last failure, unless one of the reasons already tells it."""
    if known.last_failure is None or is_away(known):
        return ""
    return f'<p class="soft">Last failure: {escape(known.last_failure)}</p>'


def _ids(known: Statistics) -> str:
    run = f"run {known.run_id}" if known.run_id else "no run"
    return f'<p class="soft">{escape(run)}</p>'
