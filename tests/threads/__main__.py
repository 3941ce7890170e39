"""`python -m tests.threads 0-99999`: play schedules of threads on all processors."""

import logging
import multiprocessing
import sys

from tests.threads.play import fault_of


def main() -> int:
    """Play the seeds that are asked for; return 1 if a promise was broken, and 0 otherwise."""
    first, last = map(int, sys.argv[1].split("-"))
    with multiprocessing.get_context("spawn").Pool(initializer=logging.disable) as pool:
        said = pool.imap_unordered(fault_of, range(first, last + 1), chunksize=100)
        broken = [what for what in said if what is not None]
    broken.append(f"{last - first + 1} schedules, {len(broken)} break a promise")
    sys.stdout.write("\n".join(broken[-20:]) + "\n")
    return len(broken) > 1


if __name__ == "__main__":
    sys.exit(main())
