"""What somebody else has said, fit for a log line and an error."""

CHARS_MAX = 200
"""What is behind so many characters is cut off."""


def printable(text: str) -> str:
    """Return the text on one line without control characters, of `CHARS_MAX` characters at most.

    What cannot be printed stands there as Python would escape it: a line feed that a peer has sent
    begins no line of a log of ours, an escape code does nothing to a terminal.
    """
    cut = text if len(text) <= CHARS_MAX else f"{text[: CHARS_MAX - 3]}..."
    if cut.isprintable():
        return cut
    escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)
    return escaped if len(escaped) <= CHARS_MAX else f"{escaped[: CHARS_MAX - 3]}..."
