"""How often each message was tried in vain, and what follows: pauses, fewer contents, giving up.

A try is in vain if the aggregator fails to handle the message, or if the link ends while only this
message is unanswered. All counts begin anew with each process.
"""

import json
import math
from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.simulation.trials._watched_link import SAMPLE, Key, Sent, WatchedLink, is_notice

EVENT_TRIES_MAX, SAMPLE_TRIES_MAX = 21, 8
"""After how many tries in vain an event, and a sample, is set aside."""

TOGETHER_MAX = 2
"""How many links may end with a message beside others; after that it goes alone."""

TOLD = "told"
"""What is told from outside the line is counted by kind."""

FORMS = 4
"""In how many forms the end of a run is sent: whole, then with less and less in it."""

PAUSE_MAX_S = 60.0
"""The longest pause before a message is tried again (s)."""

SMALLER_AFTER = 3
"""After how many ended links the end of a run is sent with less in it."""

PASSED_AFTER = 3
"""After how many failures a notice no longer holds up anything."""

LIVED_S = 10.0
"""How long a link must live to make the waits before the next ones short again (s)."""

LINKS_S = 120.0
LINKS_MAX = 40
"""How many links may open within `LINKS_S` (s) of which none lived so long.

The average waits of a backoff are 0.6, 1.1, 2.1, 4.1 and then 5.1 s. So 26 links are to be
expected, with a standard deviation of 3. A backoff that begins anew with each link makes 190.
"""

PONG_S = 5.0
"""How long a link must live after the last piece of a message left (s)."""

MS = 1e-3
"""How far a point in time may be off because of rounding (s)."""


def pause_s(tries: int) -> float:
    """Return how long to wait before the next try of a message, after `tries` in vain (s)."""
    return min(2.0 ** (tries - 1), PAUSE_MAX_S) if tries else 0.0


@define(eq=False)
class Tries:
    """Counts tries; `expect` is the oracle's.

    `set_aside` is called with each message that is set aside. `moved_at` returns when a larger
    piece of a message last left (s).
    """

    expect: Callable[[object, str], None]
    set_aside: Callable[[Sent], None]
    moved_at: Callable[[], float] = field(default=lambda: -math.inf)
    smaller: set[Key] = field(factory=set, init=False)
    """The ends of runs that must be sent with less in them, until they are."""
    paused_until: float = field(default=-math.inf, init=False)
    """When the pauses of run events and samples, which hold up samples, are over (s)."""
    _failures: dict[Key, int] = field(factory=dict, init=False)
    _cuts: dict[Key, int] = field(factory=dict, init=False)
    """How many links ended while nothing else was unanswered."""
    _links: dict[Key, int] = field(factory=dict, init=False)
    """How many links in a row ended while it was unanswered, alone or not."""
    _sendings: dict[Key, int] = field(factory=dict, init=False)
    _due_at: dict[Key, float] = field(factory=dict, init=False)
    """When the pause after the last failure is over (s)."""
    _cut: Key | None = field(default=None, init=False)
    """The only message that was unanswered when the last link ended."""
    _suspects: list[Sent] = field(factory=list, init=False)
    """Messages for which so many links have ended that the next link sets them aside."""
    _short: deque[float] = field(factory=deque, init=False)
    """When the links opened since one lived for more than `LIVED_S` (s)."""

    def begin_life(self) -> None:
        """Forget what the previous process knew."""
        self._failures.clear()
        self._cuts.clear()
        self._links.clear()
        self._sendings.clear()
        self._due_at.clear()
        self._suspects.clear()
        self._short.clear()
        self._cut = None
        self.paused_until = -math.inf

    def in_vain(self, key: Key) -> int:
        """Return how often a message was tried in vain."""
        return self._failures.get(key, 0) + self._cuts.get(key, 0)

    def is_suspect(self, key: Key) -> bool:
        """Tell whether a message that is being sent has to go alone."""
        links, in_vain = self._links.get(key, 0), self.in_vain(key)
        return links >= TOGETHER_MAX or (in_vain > 0 and (links > 0 or key[0] == SAMPLE))

    def is_in_trouble(self, kind: str) -> bool:
        """Tell whether a state may have to wait, since it was tried in vain."""
        key = (TOLD, kind)
        return key in self._links or self.in_vain(key) > 0

    def has_failed(self, key: Key) -> bool:
        """Tell whether the aggregator has failed to handle a message, or refused it."""
        return key in self._failures

    def may_pass_any(self) -> bool:
        """Tell whether a notice has failed so often that it no longer holds up anything."""
        failed = self._failures.keys() | self._cuts.keys()
        return any(is_notice(key) and self.in_vain(key) >= PASSED_AFTER for key in failed)

    # Links

    def open_link(self) -> None:
        """Note a new link; set aside the messages for which too many links have ended."""
        for sent in self._suspects:
            self.set_aside(sent)
        self._suspects.clear()
        now = trio.current_time()
        self._short.append(now)
        while self._short[0] < now - LINKS_S:
            self._short.popleft()
        few = len(self._short) <= LINKS_MAX
        self.expect(few, f"{len(self._short)} links within {LINKS_S:g} s did not last")

    def close_link(self, link: WatchedLink, why: str) -> None:
        """Note the end of a link, and count it against the message that was unanswered alone.

        `why` is the text of the error that ended the link.
        """
        if trio.current_time() - link.opened_at > LIVED_S:
            self._short.clear()
        if "did not answer" in why or "took no more" in why:
            self._check_life(link)
        if "did not answer a message" in why:
            link.check_patience(self.in_vain, why)
        for sent in link.unanswered:
            for key in keys_or_kind(sent):
                self._links[key] = self._links.get(key, 0) + 1
        only = link.only
        self._cut = keys_or_kind(only)[0] if only is not None else None
        if only is None:
            return
        for key in keys_or_kind(only):
            self._cuts[key] = self._cuts.get(key, 0) + 1
        if only.keys and not only.repeats:
            self._give_way(only)

    def _give_way(self, sent: Sent) -> None:
        """Note that a link has ended at an event or a sample."""
        in_vain = self.in_vain(sent.keys[0])
        if has_more_than_the_end(sent):
            if in_vain >= SMALLER_AFTER:
                self.smaller.add(sent.keys[0])
        elif in_vain >= _tries_max(sent.keys[0]):
            self._suspects.append(sent)

    def _check_life(self, link: WatchedLink) -> None:
        """Check that the link did not end while a message was still leaving."""
        sent = link.only
        if sent is not None and self.moved_at() >= sent.at:
            since = trio.current_time() - self.moved_at()
            alive = since >= PONG_S - MS
            self.expect(alive, f"a link was given up only {since:.1f} s after bytes had left")

    # Messages

    def tell(self, kind: str, link: WatchedLink) -> None:
        """Check that a state that has ended links is not sent again too soon."""
        key = (TOLD, kind)
        if key == self._cut and self.in_vain(key) >= 2 and kind != "UodInfoMsg":
            early_s = link.opened_at + pause_s(self.in_vain(key)) - trio.current_time()
            self.expect(
                early_s <= MS, f"{kind} had ended a link, and was sent {early_s:.2f} s early"
            )

    def told(self, kind: str, *, is_taken: bool) -> None:
        """Note the answer to a state, or to the repeated beginning of the open run."""
        key = (TOLD, kind)
        self._links.pop(key, None)
        if is_taken:
            self._cuts.pop(key, None)
            self._failures.pop(key, None)
        else:
            self._failures[key] = self._failures.get(key, 0) + 1

    def is_run_given_up(self) -> bool:
        """Tell whether the open run has been told in vain so often that what follows goes out."""
        return self.in_vain((TOLD, "RunStartedMsg")) >= EVENT_TRIES_MAX

    def send(self, key: Key, link: WatchedLink) -> None:
        """Check that a message is sent neither too soon after a try in vain nor too often."""
        now = trio.current_time()
        due_at = self._due_at.get(key, -math.inf)
        self.expect(
            now >= due_at - MS, f"{key} had failed, and was sent {due_at - now:.2f} s early"
        )
        tries = self.in_vain(key)
        if key == self._cut and tries >= 2:
            due_at = link.opened_at + pause_s(tries)
            early_s = due_at - now
            self.expect(
                early_s <= MS, f"{key} had ended a link, and was sent {early_s:.2f} s early"
            )
        self._sendings[key] = sendings = self._sendings.get(key, 0) + 1
        most = _tries_max(key) + TOGETHER_MAX + FORMS
        self.expect(sendings <= most, f"{key} was sent {sendings} times")

    def fail(self, sent: Sent, *, is_refusal: bool) -> None:
        """Note that the aggregator failed to handle a message, or refused it for good."""
        for key in sent.keys:
            self._links.pop(key, None)
            self._failures[key] = self._failures.get(key, 0) + (not is_refusal)
            if not is_refusal:
                self._due_at[key] = due_at = trio.current_time() + pause_s(self.in_vain(key))
                if key[0] not in ("notification", "errors"):
                    self.paused_until = max(self.paused_until, due_at)
        if not is_refusal and self.in_vain(sent.keys[0]) < _tries_max(sent.keys[0]):
            return
        if has_more_than_the_end(sent):
            self.smaller.add(sent.keys[0])
            self._due_at.pop(sent.keys[0], None)
        else:
            self.set_aside(sent)


def keys_or_kind(sent: Sent) -> tuple[Key, ...]:
    """Return by what the tries of a message are counted."""
    return sent.keys if sent.keys and not sent.repeats else ((TOLD, sent.kind),)


def _tries_max(key: Key) -> int:
    return SAMPLE_TRIES_MAX if key[0] == SAMPLE else EVENT_TRIES_MAX


def has_more_than_the_end(sent: Sent) -> bool:
    """Tell whether a message is the end of a run that can go out with less in it."""
    if sent.kind != "RunStoppedMsg":
        return False
    end = json.loads(sent.body)
    return end.get("archive") is not None or bool(end["runlog"]["lines"])
