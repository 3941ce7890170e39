"""A check that what is sent again is the same: it has the same number and the same body."""

from collections.abc import Callable, Iterator

from attrs import define, field

from trio_runner.simulation.trials._watched_link import Key


@define(eq=False)
class Identities:
    """Knows the number and the body of each event and sample that was sent; iterate over these.

    `expect` is the oracle's.
    """

    expect: Callable[[object, str], None]
    _numbers: dict[Key, int] = field(factory=dict, init=False)
    _numbered: dict[int, Key | None] = field(factory=dict, init=False)
    """The event or sample that was sent with each number, None for a state message."""
    _bodies: dict[Key, int] = field(factory=dict, init=False)
    """The hash of each body that was sent."""
    _parted: set[Key] = field(factory=set, init=False)
    """Errors that may be back in the log in which they were before logs became one."""

    def __contains__(self, key: object) -> bool:
        return key in self._numbers

    def __iter__(self) -> Iterator[Key]:
        return iter(self._numbers)

    def is_used(self, number: int) -> bool:
        """Tell whether a message was sent with this number."""
        return number in self._numbered

    # What is sent

    def check_number(self, number: int, key: Key | None) -> None:
        """Check that no other message had this number; `key` is None for a state message."""
        is_new = number not in self._numbered
        known = self._numbered.setdefault(number, key)
        self.expect(
            is_new or (known == key and key is not None),
            f"{key or 'a state'} was sent with the number {number} of {known or 'a state'}",
        )

    def check_key(self, key: Key, number: int) -> None:
        """Check that an event or sample had no other number."""
        if key in self._parted:
            self._parted.discard(key)
            self._numbers[key] = number
        known = self._numbers.setdefault(key, number)
        self.expect(known == number, f"{key} has the number {known} but was sent with {number}")

    def check_body(self, key: Key, body: str) -> None:
        """Check that an event or sample is what it was when it was sent before."""
        known = self._bodies.setdefault(key, hash(body))
        self.expect(known == hash(body), f"{key} was sent again, but it is not the same")

    # What need not stay the same

    def may_change(self, key: Key) -> None:
        """Note that an event goes out with less in it the next time."""
        self._bodies.pop(key, None)

    def forget(self, key: Key) -> None:
        """Note that an event will be made anew."""
        self._numbers.pop(key, None)
        self._bodies.pop(key, None)

    def forget_owners(self) -> None:
        """Note that numbers may be used again, since they may not be on disk."""
        self._numbered.clear()

    def begin_anew(self) -> None:
        """Note that all numbers were in the memory of a process that has ended."""
        self._numbers.clear()
        self._numbered.clear()

    def may_go_back(self) -> None:
        """Note that the disk may bring back an older form of what changes: logs, ends of runs."""
        changing = "errors", "RunStoppedMsg"
        self._bodies = {key: body for key, body in self._bodies.items() if key[0] not in changing}
        self._parted.update(key for key in self._numbers if key[0] == "errors")
