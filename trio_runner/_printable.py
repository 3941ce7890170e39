"""Makes other people's text fit for a log line and an error."""

CHARS_MAX = 200
"""Text beyond so many characters is cut off."""


def printable(text: object, longest: int = CHARS_MAX) -> str:
    """Return the text on one line, without control characters, of `longest` characters at most.

    Characters that cannot be printed are escaped as in Python. So a line feed from a peer does not
    begin a line in our log, and an escape code does nothing to a terminal.
    """
    cut = _cut(str(text), longest)
    if cut.isprintable():
        return cut
    return _cut("".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
