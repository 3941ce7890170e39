"""How a unit's files are named, so that the folder may be on any system.

Different units get different names, and `unquote` turns a file's name back into the unit's, unless
that is very long. Windows forbids `CON`, drops dots and spaces at the end, and does not tell `Skid`
from `skid`.
"""

import re
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the dot."""

NAME_MAX = 160
"""Where a longer name is cut (characters, as quoted); a checksum stands for the rest."""

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
    """Return the path of a unit's outbox in an existing folder.

    Add a checksum, and keep it from then on, if another unit's file has the same name except for
    the case of letters. Some systems could not tell the two apart.
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
