"""What the aggregator sends to an engine."""

from attrs import frozen

from trio_runner.protocol.messages import OPENPECTUS_VERSION, MessageBase
from trio_runner.protocol.models import Method


@frozen(kw_only=True)
class AggregatorMessage(MessageBase):
    """The base of all messages that the aggregator sends."""


@frozen(kw_only=True)
class RegisterEngineReplyMsg(AggregatorMessage):
    """Whether the engine may connect, and if not, why.

    `engine_id` is the id under which the engine must connect. A refusal has its reason in
    `secret_match` or `version_match`, which is then false. If neither is false, an engine of this
    id is still connected. `aggregator_build_number` is the version that engines must have.
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
    """Run these lines of P-code in addition to the method; each ends in a line feed."""

    pcode: str


@frozen(kw_only=True)
class MethodMsg(AggregatorMessage):
    """Replace the engine's method by this one."""

    method: Method


@frozen(kw_only=True)
class CancelMsg(AggregatorMessage):
    """Cancel an instruction; `exec_id` is the id of its line in the run log."""

    exec_id: str


@frozen(kw_only=True)
class ForceMsg(AggregatorMessage):
    """End the wait of an instruction; `exec_id` is the id of its line in the run log."""

    exec_id: str
