"""Numbers in a form for people."""


def counted(number: int, what: str) -> str:
    """Return a number with what it counts: `1 message`, `1,234 messages`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def sized(number: float) -> str:
    """Return a size given in bytes: `812 bytes`, `3.1 kB`, `64 MB`."""
    if number < 1000:
        return f"{number:.0f} bytes"
    power = 1 if number < 999.5e3 else 2 if number < 999.5e6 else 3
    scaled = number / 1000**power
    unit = ("bytes", "kB", "MB", "GB")[power]
    return f"{scaled:.1f} {unit}" if scaled < 9.95 else f"{scaled:.0f} {unit}"


def brief(seconds: float) -> str:
    """Return a short duration given in seconds: `2.4 ms`, `31 ms`, `1.2 s`."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.1f} ms" if seconds < 0.00995 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
