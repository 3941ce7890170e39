"""How a unit's files are named, on every system that the folder may be on.

A name is told apart from any other, and comes back from its file's name by `unquote`, unless it is
very long. Windows knows no `CON`, cuts dots and spaces at the end, and takes `Skid` for `skid`.
"""

import re
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever comes behind the dot."""

NAME_MAX = 160
"""Of longer names (characters as they are quoted) the rest is told by a checksum."""

SUFFIX = ".outbox"


def file_name(unit: str) -> str:
    """Return the name of a unit's file or folder, without a suffix."""
    name = quote(unit, safe=" ")
    if RESERVED.match(name):
        name = _escaped(name[0]) + name[1:]
    if name[-1:] in (".", " "):
        name = name[:-1] + _escaped(name[-1])
    return name if len(name) <= NAME_MAX else _tagged(name[:NAME_MAX], unit)


def outbox_path(folder: Path, unit: str) -> Path:
    """Return the path of a unit's outbox in a folder that is there.

    Where another unit, whose name differs in the case of letters only, has taken it, or would be
    taken for this one on another system, it gets a checksum, and keeps it.
    """
    name = file_name(unit)
    plain, tagged = name + SUFFIX, _tagged(name, unit) + SUFFIX
    there = {path.name for path in folder.iterdir()}
    others = {other.casefold() for other in there if other != plain}
    return folder / (tagged if tagged in there or plain.casefold() in others else plain)


def _escaped(letter: str) -> str:
    return f"%{ord(letter):02X}"


def _tagged(name: str, unit: str) -> str:
    return f"{name}~{crc32(unit.encode()):08x}"
