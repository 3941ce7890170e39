"""What can go wrong with a link, as data.

The comment above a group of cases is their row in the table of promises.
"""

from tests.faults.cases import closes, nonsense, refusals, silence
from tests.faults.cases.case import STILL_HELD, Case

__all__ = ["CASES", "STILL_HELD", "Case"]

CASES = [*closes.CASES, *nonsense.CASES, *silence.CASES, *refusals.CASES]
