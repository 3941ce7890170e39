"""What an answer of the aggregator's says."""

import pytest

from trio_runner._answers import Verdict, classify, reason
from trio_runner.protocol import messages as m


@pytest.mark.parametrize(
    ("answer", "verdict", "why"),
    [
        (m.SuccessMessage(), Verdict.DELIVERED, "SuccessMessage"),
        (m.ErrorMessage(), Verdict.POISON, "ErrorMessage"),
        (m.ErrorMessage(message="No"), Verdict.POISON, "No"),
        (m.ProtocolErrorMessage(protocol_msg="A", message="B"), Verdict.POISON, "A B"),
        (
            m.ProtocolErrorMessage(protocol_msg="Handler raised exception"),
            Verdict.TRANSIENT,
            "Handler raised exception",
        ),
        (
            m.ErrorMessage(message="No engine registered under x"),
            Verdict.NOT_REGISTERED,
            "No engine registered under x",
        ),
    ],
)
def test_an_answer_tells_what_becomes_of_its_message(
    answer: m.MessageBase, verdict: Verdict, why: str
) -> None:
    """What it says in words decides. An answer without words is named."""
    assert (classify(answer), reason(answer)) == (verdict, why)
