"""Is a write-ahead log whole? SQLite itself stops at the first frame that is not, without a word.

The format is that of https://www.sqlite.org/fileformat2.html#walformat: a header, then frames, each
a page with a checksum over itself and all before it. Every time the log begins anew its two salts
change, the first by one; frames of the time before stay behind the new ones until they are
overwritten. The header counts how often it began anew.
"""

import struct
import sys
from array import array
from operator import mul
from pathlib import Path
from typing import BinaryIO

from attrs import define, field

MAGIC = 0x377F0682
"""Of a log whose checksums are of little-endian words; one more for big-endian ones."""

HEADER = struct.Struct(">8L")
FRAME_HEADER = struct.Struct(">6L")
CHECKED = 24, 8
"""How much of the header and of a frame's header the checksum is over (bytes)."""

MASK = 0xFFFFFFFF

Sums = tuple[int, int]


class Checksum:
    """The checksum over a fixed number of words, as two sums of products.

    Word by word it is `s0 += word + s1` and `s1 += word + s0` in turn: each word counts as often as
    the Fibonacci number says of how many stand behind it.
    """

    def __init__(self, words: int, *, is_big_endian: bool) -> None:
        fibonacci = [0, 1]
        while len(fibonacci) < words + 2:
            fibonacci.append((fibonacci[-2] + fibonacci[-1]) & MASK)
        self._end = fibonacci[-3:]
        self._weights = fibonacci[words - 1 :: -1], fibonacci[words:0:-1]
        self._is_swapped = is_big_endian != (sys.byteorder == "big")

    def of(self, data: bytes, before: Sums) -> Sums:
        """Return the checksum of data behind other data that had the checksum `before`."""
        words = array("I", data)
        if self._is_swapped:
            words.byteswap()
        first, second, third = self._end
        s0 = first * before[0] + second * before[1] + sum(map(mul, self._weights[0], words))
        s1 = second * before[0] + third * before[1] + sum(map(mul, self._weights[1], words))
        return s0 & MASK, s1 & MASK


@define
class Log:
    """What counts of a write-ahead log: the newest content of each page, up to the last commit."""

    fault: str | None = None
    page_bytes: int = 0
    pages: dict[int, int] = field(factory=dict)
    """Where in the log the content of a page of the database stands, by its number from 1 on."""
    file_pages: int | None = None
    """How many pages the database has after the last commit, None if there is none."""
    _open: dict[int, int] = field(factory=dict, init=False)

    def note(self, number: int, at: int, file_pages: int) -> None:
        """Note a frame that is whole; those up to one with a size are a transaction."""
        self._open[number] = at
        if file_pages:
            self.pages.update(self._open)
            self._open.clear()
            self.file_pages = file_pages


def fault_of(log: Path) -> str | None:
    """Return what is wrong with a log, None if it is whole or not there.

    The end of a log may be of a transaction that was under way when the process or the power ended;
    if the power ended, it may not be whole, which cannot be told from one that the disk has spoilt.
    """
    try:
        with log.open("rb") as file:
            return read_log(file).fault
    except FileNotFoundError:
        return None


def read_log(file: BinaryIO) -> Log:
    """Return what of a log counts, and what is wrong with it."""
    log = Log()
    header = file.read(HEADER.size)
    if not header:
        return log
    if len(header) < HEADER.size:
        return Log("its header is cut short")
    magic, _, log.page_bytes, beginnings, *salts, _, _ = HEADER.unpack(header)
    is_big_endian = bool(magic & 1)
    sums = Checksum(6, is_big_endian=is_big_endian).of(header[: CHECKED[0]], (0, 0))
    if magic & ~1 != MAGIC or sums != HEADER.unpack(header)[6:]:
        return Log("its header is not whole")
    checksum = Checksum((CHECKED[1] + log.page_bytes) // 4, is_big_endian=is_big_endian)
    log.fault = _read_frames(file, log, (salts[0], salts[1]), beginnings, checksum, sums)
    return log


def _read_frames(
    file: BinaryIO, log: Log, salts: Sums, beginnings: int, checksum: Checksum, sums: Sums
) -> str | None:
    frame_bytes = FRAME_HEADER.size + log.page_bytes
    number, is_at_end = 0, False
    while len(data := file.read(frame_bytes)) == frame_bytes:
        number += 1
        found = FRAME_HEADER.unpack_from(data)
        if is_at_end:
            if found[2:4] == salts:
                return f"frame {number} stands behind the end"
            continue
        if found[2:4] == salts:
            sums = checksum.of(data[: CHECKED[1]] + data[FRAME_HEADER.size :], sums)
            if sums != found[4:]:
                return f"frame {number} is not whole"
            at = HEADER.size + number * frame_bytes - log.page_bytes
            log.note(found[0], at, file_pages=found[1])
        elif 0 < (salts[0] - found[2]) & MASK <= beginnings and found[3] not in (0, salts[1]):
            is_at_end = True
        else:
            return f"frame {number} is of no log"
    return None
