"""The check of a write-ahead log: SQLite stops silently at the first frame that is not whole.

The format is that of https://www.sqlite.org/fileformat2.html#walformat: a header, then frames. Each
frame is a page with a checksum over itself and everything before it. Every time the log begins
anew, its two salts change, the first by one. Frames of the time before stay after the new ones
until they are overwritten. The header counts how often the log began anew.
"""

import struct
import sys
from array import array
from operator import mul
from pathlib import Path
from typing import BinaryIO

from attrs import define, field

MAGIC = 0x377F0682
"""The magic number if checksums are over little-endian words; one more for big-endian words."""

HEADER = struct.Struct(">8L")
FRAME_HEADER = struct.Struct(">6L")
CHECKED = 24, 8
"""How much of the header, and of a frame's header, the checksum covers (bytes)."""

MASK = 0xFFFFFFFF

Sums = tuple[int, int]


class Checksum:
    """The checksum over a fixed number of words, computed as two sums of products.

    Word by word it is `s0 += word + s1` and `s1 += word + s0` in turn. So the weight of each word
    is a Fibonacci number, given by how many words follow it.
    """

    def __init__(self, words: int, *, is_big_endian: bool) -> None:
        fibonacci = [0, 1]
        while len(fibonacci) < words + 2:
            fibonacci.append((fibonacci[-2] + fibonacci[-1]) & MASK)
        self._end = fibonacci[-3:]
        self._weights = fibonacci[words - 1 :: -1], fibonacci[words:0:-1]
        self._is_swapped = is_big_endian != (sys.byteorder == "big")

    def of(self, data: bytes, before: Sums) -> Sums:
        """Return the checksum of `data` that follows other data with the checksum `before`."""
        words = array("I", data)
        if self._is_swapped:
            words.byteswap()
        first, second, third = self._end
        s0 = first * before[0] + second * before[1] + sum(map(mul, self._weights[0], words))
        s1 = second * before[0] + third * before[1] + sum(map(mul, self._weights[1], words))
        return s0 & MASK, s1 & MASK


@define
class Log:
    """The valid part of a write-ahead log: each page's newest content, up to the last commit."""

    fault: str | None = None
    page_bytes: int = 0
    pages: dict[int, int] = field(factory=dict)
    """Where in the log the content of a database page stands, by the page's number from 1 on."""
    file_pages: int | None = None
    """How many pages the database has after the last commit, or None if there is no commit."""
    _open: dict[int, int] = field(factory=dict, init=False)

    def note(self, number: int, at: int, file_pages: int) -> None:
        """Note a frame that is whole. The frames up to one with a size are a transaction."""
        self._open[number] = at
        if file_pages:
            self.pages.update(self._open)
            self._open.clear()
            self.file_pages = file_pages


def fault_of(log: Path) -> str | None:
    """Return what is wrong with a log, or None if it is whole or does not exist.

    A log may end with a transaction that was under way when the process or the power ended. If the
    power ended, that transaction may not be whole, which looks the same as damage by the disk.
    """
    try:
        with log.open("rb") as file:
            return read_log(file).fault
    except FileNotFoundError:
        return None


def read_log(file: BinaryIO) -> Log:
    """Return the valid part of a log, and what is wrong with the rest."""
    log = Log()
    header = file.read(HEADER.size)
    if not header:
        return log
    if len(header) < HEADER.size:
        return Log("the header is cut short")
    magic, _, log.page_bytes, beginnings, *salts, _, _ = HEADER.unpack(header)
    is_big_endian = bool(magic & 1)
    sums = Checksum(6, is_big_endian=is_big_endian).of(header[: CHECKED[0]], (0, 0))
    if magic & ~1 != MAGIC or sums != HEADER.unpack(header)[6:]:
        return Log("the header is damaged")
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
                return f"frame {number} comes after the end"
            continue
        if found[2:4] == salts:
            sums = checksum.of(data[: CHECKED[1]] + data[FRAME_HEADER.size :], sums)
            if sums != found[4:]:
                return f"frame {number} is damaged"
            at = HEADER.size + number * frame_bytes - log.page_bytes
            log.note(found[0], at, file_pages=found[1])
        elif 0 < (salts[0] - found[2]) & MASK <= beginnings and found[3] not in (0, salts[1]):
            is_at_end = True
        else:
            return f"frame {number} belongs to no log"
    return None
