"""The list of all marks: each is a situation that a simulation must meet sometimes.

The world, the stand-ins and the oracle call `sometimes` with a mark's name when they meet it.
"""

from collections import Counter
from collections.abc import Mapping

from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._state_changes import EDGES

MANY_SEEDS = 1000
"""A run of more seeds than this must meet every mark."""

MARKS: dict[str, str] = {
    # The engine
    "run turns in reading": "A run begins or ends while its tags are read.",
    "over 16 MiB": "The end of a run is larger than an aggregator takes.",
    "dear run log": "Making a run log takes Trio's thread for a while.",
    "builder fails": "The engine fails to make a message.",
    # Messages that go out
    "tried again": "What the aggregator failed to handle is sent again.",
    "goes alone": "A sample goes alone, since it may be to blame for what happened.",
    "goes smaller": "The end of a run is sent with less in it.",
    "logs merged": "Several logs of errors go out as one message.",
    "run repeated": "A new link is told of the run that is on.",
    "one at a time": "One sample is unanswered, and others wait for its answer.",
    "several at once": "Several samples are unanswered at once.",
    "many at once": "More than eight other samples are unanswered when one is sent.",
    "passes a notice": "A sample is sent while a notice is unanswered.",
    "taken seldom": "The link does not keep up, and samples are taken more seldom.",
    "settled far away": "The rate of samples is judged over more than a second there and back.",
    "settled on a thin line": "The age of values is judged over a path of under 1.5 kB/s.",
    # What is answered
    "taken": "The aggregator takes a message.",
    "failed": "The aggregator fails to handle an event or a sample.",
    "refused": "The aggregator refuses an event or a sample for good.",
    "not registered": "The aggregator does not know the engine.",
    "state failed": "The aggregator fails to handle a state.",
    "state refused": "The aggregator refuses a state.",
    "unit not taken": "The aggregator does not take the description of the unit.",
    "repeated run not taken": "The aggregator does not take the beginning of the run again.",
    "set aside": "A message is given up.",
    "arrived again": "A message arrives a second time.",
    "run known": "The aggregator is told of a run that it already has.",
    "other run archived": "A run ends at the aggregator because another begins.",
    # Links and dials
    "run event cut": "A link ends while the beginning or the end of a run is unanswered.",
    "notice cut": "A link ends while a notice alone is unanswered.",
    "samples cut": "A link ends while several samples are unanswered.",
    "state cut": "A link ends while a state is unanswered.",
    "answer missing": "A link ends because a message is not answered.",
    "pong missing": "A link ends because a ping is not answered.",
    "answer unreadable": "A link ends because an answer cannot be read.",
    "closed in order": "A link ends because the aggregator closes it.",
    "frame unreadable": "A link ends because a frame is not a remote call.",
    "dial AggregatorUnreachable": "A dial finds nothing that answers.",
    "dial AlreadyConnected": "A dial finds that the aggregator holds another connection.",
    "dial NotAnAggregator": "A dial finds something that is not an aggregator.",
    "dial SecretRefused": "A dial is refused because of its secret.",
    "dial VersionRefused": "A dial is refused because of its version.",
    "dial in line": "A dial's connection is accepted, but not let in in time.",
    "handshake cut": "A connection ends before it is a link.",
    "message cut": "A connection ends in the middle of what is sent.",
    "line full": "A sender waits for room on the connection.",
    "message over a size": "An aggregator ends a link because of the size of a message.",
    "long archiving": "The aggregator takes long over the archive of a run.",
    # People's calls
    "call answered": "A command of a person is carried out.",
    "call refused": "A command of a person is answered with an error.",
    "call late": "A command of a person is not answered in time, through no fault of the runner.",
    "call cut": "A link ends before a command of a person is answered.",
    "handler late": "A command's handler takes longer than its answer may.",
    "handlers many": "A command comes while 16 others have not ended.",
    # Where messages wait
    "thinned": "Samples are given up at the outbox's bound.",
    "thinned beside events": "Samples are given up while events wait.",
    "few samples left": "Events leave room for only a few samples.",
    "over its bound": "What cannot be given up is over the outbox's bound.",
    "disk full": "What waits is in memory only, because the disk is full.",
    "disk slow": "What waits is in memory only, because the disk is slow.",
    "torn": "The power fails in the middle of a write.",
    "not synced": "A power cut takes away what was not synced.",
    "damage told": "Damage by the disk is found and told.",
    "kept apart": "Messages are kept under the name that the computer had.",
    # Processes
    "ended by a bug": "A process ends because of a bug of its engine.",
    "lost with memory": "A process dies with messages in its memory.",
    "left on disk": "A process dies, and leaves messages on its disk.",
    "run ended for it": "A run that was on when a process died is ended by the next.",
    "run resumed": "A run that was on when a process died goes on in the next.",
    "flush cut": "A flush is cut by its deadline.",
    "flushed": "A process that is stopped delivers what waits.",
    **{f"fault {kind}": f"The fault {kind} happens." for kind in FAULTS},
    **{
        f"{before} -> {after}": f"The state goes from {before} to {after}."
        for before, edges in EDGES.items()
        for after in edges.split()
    },
}
"""The meaning of each mark, by its name."""


def missing(met: Counter[str], known: Mapping[str, str] = MARKS) -> list[str]:
    """Return the marks that were not met, in the order of `known`."""
    return [name for name in known if not met[name]]
