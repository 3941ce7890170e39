"""`python -m tests.storm SEED MINUTES`: run a storm, and say how it went."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.storm.storm import gathering


async def main(seed: int, minutes: float) -> None:
    """Run a storm. Raises Broken if a promise was not kept."""
    with TemporaryDirectory() as folder:
        async with gathering(seed, Path(folder)) as storm:
            await storm.rage(minutes * 60)
            counts = await storm.judge()
            happened = ", ".join(f"{times} {name}" for name, times in storm.happened.items())
            sys.stdout.write(f"Every promise was kept in {minutes:g} min: {counts}; {happened}\n")


trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
