"""Which samples are given up when an outbox has reached its bound."""

from trio_runner._outbox._entry import Entry


def every_second_of_the_densest(samples: list[Entry]) -> list[Entry]:
    """Return every second sample in the oldest half, where they are densest, to be given up.

    Dropping a sample leaves a gap between its neighbours, measured in sequence numbers. The quarter
    with the smallest gaps may go, and any others whose gaps are no wider, but never two neighbours
    at once. So old samples become evenly thin, however few have room, and stay so after a restart:
    no gap becomes wider than 8/3 of the mean distance. Halving the whole line each time would keep
    the end of a long outage and next to nothing of its beginning.
    """
    old = samples[: max(2, len(samples) // 2)]
    numbers = [entry.sequence_number for entry in samples[: len(old) + 1]]
    numbers.append(numbers[-1] if numbers else 0)  # if no sample follows the last one
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
