"""What somebody else has said, fit for a log line and an error."""

CHARS_MAX = 200
"""What is behind so many characters is cut off."""


def printable(text: object, longest: int = CHARS_MAX) -> str:
    """Return the text on one line without control characters, of `longest` characters at most.

    What cannot be printed stands there as Python would escape it: a line feed that a peer has sent
    begins no line of a log of ours, an escape code does nothing to a terminal.
    """
    cut = _cut(str(text), longest)
    if cut.isprintable():
        return cut
    return _cut("".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
