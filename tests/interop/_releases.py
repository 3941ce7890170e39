"""Which releases of Open Pectus are tested."""

import os

RELEASES = "0.1.1494", "0.1.1538", "0.1.1554", "0.1.1574", "0.1.1581", "0.1.1585"
OLDEST_AND_NEWEST = RELEASES[0], RELEASES[-1]

VARIABLE = "TRIO_RUNNER_OPENPECTUS_RELEASES"
"""Names the releases, separated by commas; without it, the oldest and the newest are tested."""


def releases() -> tuple[str, ...]:
    """Return the releases to test."""
    named = os.environ.get(VARIABLE)
    return tuple(named.split(",")) if named else OLDEST_AND_NEWEST
