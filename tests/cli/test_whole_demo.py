"""The demo from its beginning to its end, as people start it."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_simulate import drawn

STATES = re.compile(r"state: \w+ -> (\w+)")


def test_the_demo_survives_its_outage_and_loses_nothing(
    whole_demo: "subprocess.Popen[str]", demo_page: Path
) -> None:
    """Through a pipe it prints a line for each thing that happens, and ends by itself with 0.

    Its picture shows the outage, and all that was made arrives in it.
    """
    out, err = whole_demo.communicate(timeout=40)
    assert (whole_demo.returncode, err) == (0, "")
    states = STATES.findall(out)
    assert states[:3] == ["Connected", "Failed", "Disconnected"]
    assert states[-5:] == [
        "Reconnecting",
        "CatchingUp",
        "Reconnected",
        "Stopped",
        "ShutdownComplete",
    ]
    lines = out.splitlines()
    verdict = lines.index("Nothing lost.")
    assert all(re.fullmatch(r" *\d+\.\d s  .+", line) for line in lines[:verdict])
    samples, events, outage, plot, picture = lines[verdict + 1 :]
    # The outage alone has more than 20 samples at the steady rate.
    taken, delivered = map(int, re.findall(r"(\d+) (?:taken|delivered)", samples))
    assert taken == delivered > 40
    assert "0 lost" in samples
    assert events.endswith("0 lost, 1 sent again, in order")
    assert outage.startswith("outage   8.0 s; reconnected ")
    assert float(plot.split()[-2]) < 2, "the plot has a hole"
    assert picture == f"picture  {demo_page}"
    life = drawn(demo_page)
    (fault,) = life["faults"]
    assert fault["name"] == "kill_aggregator"
    assert fault["to_s"] - fault["from_s"] == pytest.approx(8, abs=0.5)
    assert [span["name"] for span in life["links"]] == ["link 1", "link 2"]
    assert len(life["samples"]) == taken
    assert all(one["arrived_s"] is not None for one in (*life["samples"], *life["events"]))
    # The outage's first sample is the oldest one that waits at its end.
    assert max(level["oldest_s"] or 0 for level in life["levels"]) > 7
    assert [span["name"] for span in life["states"][1:]] == states
