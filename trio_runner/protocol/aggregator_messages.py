"""What the aggregator sends to an engine."""

from attrs import frozen

from trio_runner.protocol.messages import OPENPECTUS_VERSION, MessageBase
from trio_runner.protocol.models import Method


@frozen(kw_only=True)
class AggregatorMessage(MessageBase):
    """The base of what the aggregator sends."""


@frozen(kw_only=True)
class RegisterEngineReplyMsg(AggregatorMessage):
    """Whether the engine may connect, and if not, why.

    `engine_id` is the id under which the engine must connect. `secret_match` false or
    `version_match` false tell the reason of a refusal; with neither false, an engine of this id is
    still connected. `aggregator_build_number` is the version that the aggregator wants of engines.
    """

    success: bool
    engine_id: str | None = None
    secret_match: bool | None = None
    version_match: bool | None = None
    aggregator_build_number: str = OPENPECTUS_VERSION


@frozen(kw_only=True)
class ExecuteControlCommandMsg(AggregatorMessage):
    """Somebody pressed a button: `name` is Start, Stop, Pause, Unpause, Hold, Unhold or Restart."""

    name: str = ""


@frozen(kw_only=True)
class InjectCodeMsg(AggregatorMessage):
    """Run these lines of P-code besides the method; lines end in a line feed."""

    pcode: str


@frozen(kw_only=True)
class MethodMsg(AggregatorMessage):
    """Take this method in place of the one that is there."""

    method: Method


@frozen(kw_only=True)
class CancelMsg(AggregatorMessage):
    """Cancel an instruction; `exec_id` is the id of its line in the run log."""

    exec_id: str


@frozen(kw_only=True)
class ForceMsg(AggregatorMessage):
    """End the wait of an instruction; `exec_id` is the id of its line in the run log."""

    exec_id: str
