"""`python -m tests.mutation`: change the core in many small ways, and see what notices."""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, define, field

from tests.mutation.mutants import PACKAGE, Mutant, core_modules, mutants_of, sample
from tests.mutation.trials import NO_PYTHON, TESTS_S_MAX, Trial, Trials, trials_of
from trio_runner.simulation.trials import _simulate

ROOT = PACKAGE.parent

TESTS = (
    "tests/test_again.py",
    "tests/test_answers.py",
    "tests/test_backoff.py",
    "tests/test_intake.py",
    "tests/test_news.py",
    "tests/test_notices.py",
    "tests/test_outbox.py",
    "tests/test_outbox_checking.py",
    "tests/test_outbox_damage.py",
    "tests/test_outbox_facts.py",
    "tests/test_outbox_requeue.py",
    "tests/test_outbox_slow_disk.py",
    "tests/test_outbox_snapshot.py",
    "tests/test_outbox_sqlite.py",
    "tests/test_outbox_written.py",
    "tests/test_states.py",
    "tests/test_under_way.py",
    "tests/test_window.py",
    "tests/runner",
    "tests/net/test_before.py",
    "tests/net/test_large.py",
    "tests/net/test_session.py",
)
"""The tests that are chosen, unless others are named."""

EQUIVALENT = Path(__file__).with_name("equivalent.txt").read_text()

QUIET = "-W", "ignore::pytest.PytestAssertRewriteWarning"
"""A plugin of pytest's is imported with the runner, before pytest begins."""

SURVIVED = "nothing"


@define
class Kept:
    """What earlier runs have found, in a file, so that a run can be interrupted and goes on."""

    _path: Path
    trials: dict[str, dict[str, Any]] = field(factory=dict)
    """What was measured of each, and the hash of the code that it was measured with."""
    caught: dict[str, str] = field(factory=dict)
    """What has caught each mutant, by its key."""

    @classmethod
    def read(cls, path: Path) -> "Kept":
        """Read the file, if it is there."""
        return cls(path, **json.loads(path.read_text())) if path.exists() else cls(path)

    def write(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"trials": self.trials, "caught": self.caught}))


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def digest(*files: Path) -> str:
    """Return a hash of what files hold."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measured(trials: Trials, kept: Kept) -> list[Trial]:
    """Return all trials that pass; measure those anew whose code has changed."""
    package = digest(*sorted(PACKAGE.rglob("*.py")))
    hashes = {}
    for name in trials.names:
        test = ROOT / name.partition("::")[0]
        hashes[name] = package + (digest(test) if test.is_file() else "")
    new = [name for name in trials.names if kept.trials.get(name, {}).get("hash") != hashes[name]]
    say(f"{len(trials.names)} tests and lives, of which {len(new)} are measured now")
    for name in new:  # one that fails now is not to be used as it was
        kept.trials.pop(name, None)
    for trial in trials.measure(new):
        kept.trials[trial.name] = {"hash": hashes[trial.name], "trial": asdict(trial)}
    kept.write()
    known = (kept.trials[name] for name in trials.names if name in kept.trials)
    return [Trial(**record["trial"]) for record in known]


def try_all(mutants: list[Mutant], trials: Trials, kept: Kept, *, again: bool) -> None:
    """Find out what catches each mutant of which that is not known; tell the survivors."""
    known = measured(trials, kept)
    left = [
        m for m in mutants if kept.caught.get(m.key, SURVIVED if again else "") in ("", SURVIVED)
    ]
    say(f"{len(left)} mutants to try")
    tests_s_max = math.inf if again else TESTS_S_MAX
    began = time.monotonic()
    for count, mutant in enumerate(left, 1):
        caught = trials.catch(mutant, trials_of(mutant, known, tests_s_max))
        kept.caught[mutant.key] = caught or SURVIVED
        if caught is None:
            say(f"\n{told(mutant)}\n")
        if count % 10 == 0 or count == len(left):
            kept.write()
            left_min = (time.monotonic() - began) / count * (len(left) - count) / 60
            say(f"{count} of {len(left)}; {left_min:.0f} min left")


def told(mutant: Mutant) -> str:
    """Return a mutant for people."""
    return f"{mutant.module}:{mutant.lines.start} {mutant.function}\n{mutant.diff}"


def reason(mutant: Mutant) -> str | None:
    """Return why a mutant is equivalent, or None if it is not known to be."""
    place = f"{mutant.module} {mutant.function}\n"
    if place not in EQUIVALENT:  # else the diff need not be made
        return None
    _, is_there, why = EQUIVALENT.partition(f"\n\n{place}{mutant.diff}\n")
    return why.partition("\n\n")[0] if is_there else None


def table(mutants: Iterable[Mutant], kept: Kept) -> str:
    """Return how many mutants of each module were caught by what."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant in mutants:
        caught = "equivalent" if reason(mutant) else kept.caught.get(mutant.key)
        if caught in (None, NO_PYTHON):
            continue
        kind = "seeds" if caught.startswith("seed ") else "tests"
        for module in (mutant.module, "all"):
            counts[module][caught if caught in ("equivalent", SURVIVED) else kind] += 1
    columns = ("tests", "seeds", "equivalent", SURVIVED)
    rows = ["| module | mutants | caught by tests | by seeds | equivalent | survivors | caught |"]
    rows.append("| --- " * 7 + "|")
    for module, found in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        score = 1 - found[SURVIVED] / (found.total() - found["equivalent"] or 1)
        numbers = " | ".join(str(found[column]) for column in columns)
        rows.append(f"| {module} | {found.total()} | {numbers} | {score:.0%} |")
    return "\n".join(rows)


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    add = parser.add_argument
    add("--sample", type=int, metavar="N", help="try only N mutants, spread evenly")
    add("--seed", type=int, default=0, help="which N (default: 0)")
    add("--module", metavar="NAME", help="only those of a module, such as _outbox/_line")
    add("--tests", nargs="+", default=TESTS, help="by these tests (default: those of the core)")
    add("--seeds", type=int, default=50, metavar="N", help="lives after the tests (default: 50)")
    add("--again", action="store_true", help="try again what has survived, by all tests")
    results = ROOT / ".cache/mutation.json"
    add("--results", type=Path, default=results, help="where to keep what is found")
    return parser.parse_args()


def _memory_folder() -> Path | None:
    return _simulate.MEMORY_FOLDER if _simulate.MEMORY_FOLDER.is_dir() else None


def main() -> int:
    """Try mutants and print the table; return 1 if one survived, else 0."""
    asked = parsed()
    kept = Kept.read(asked.results)
    mutants = [mutant for path in core_modules(asked.module) for mutant in mutants_of(path)]
    chosen = sample(mutants, (asked.sample or len(mutants)) / len(mutants), asked.seed)
    say(f"{len(chosen)} of {len(mutants)} mutants of the core")
    tried = [mutant for mutant in chosen if reason(mutant) is None]
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        _simulate.MEMORY_FOLDER = Path(folder)  # what is killed cannot clear up
        trials = Trials(lambda trials: try_all(tried, trials, kept, again=asked.again), asked.seeds)
        options = ["-qq", "-s", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", *QUIET]
        pytest.main([*options, *asked.tests], plugins=[trials])
    survivors = [mutant for mutant in tried if kept.caught.get(mutant.key) == SURVIVED]
    for mutant in survivors:
        say(f"\n{told(mutant)}")
    say(f"\n{table(chosen, kept)}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
