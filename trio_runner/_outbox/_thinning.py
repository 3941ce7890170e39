"""Which samples are given up when an outbox has reached its bound."""

from trio_runner._outbox._entry import Entry


def every_second_of_the_densest(samples: list[Entry]) -> list[Entry]:
    """Return what to give up: of the oldest half every second sample, where they are densest.

    How dense they are shows in how far the neighbours of each are apart, by their numbers: so wide
    a hole it would leave. A quarter of them, or more that leave no wider one, may go, two
    neighbours never at once. So what is old becomes evenly thin, however few have room, and stays
    so behind a restart: no hole is made that is wider than 8 thirds of the mean distance. Halving
    all of it each time would leave of a long outage its end and next to nothing of its beginning.
    """
    old = samples[: max(2, len(samples) // 2)]
    numbers = [entry.sequence_number for entry in samples[: len(old) + 1]]
    numbers.append(numbers[-1] if numbers else 0)  # where there is none behind the last
    widths = [numbers[place + 1] - numbers[place - 1] for place in range(1, len(old))]
    if not widths:
        return []
    widest = sorted(widths)[len(widths) // 4]
    given_up: list[Entry] = []
    stays = old[0]
    for before, entry, width in zip(old, old[1:], widths, strict=False):
        if width <= widest and before is stays:
            given_up.append(entry)
        else:
            stays = entry
    return given_up
