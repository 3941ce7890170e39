"""An engine that has ended, as its outbox knows it: it describes itself but has no news."""

from attrs import define, evolve, field

from trio_runner._outbox_sqlite import Origin
from trio_runner._plain_messages import PlainMessages
from trio_runner.protocol import OPENPECTUS_VERSION, foreign
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

INTERVAL_S = 1.0
"""The data-log interval for a unit whose own is unknown (s). The aggregator leaves out samples that
are closer together, so this is short to be safe."""


@define(eq=False, slots=False)
class DeadEngine(PlainMessages):
    """Registers and describes itself like the engine that filled an outbox."""

    origin: Origin = field(kw_only=True)

    @classmethod
    def of(cls, origin: Origin, secret: str, *, ignore_version_error: bool) -> "DeadEngine":
        """Return the engine, with the secret that the aggregator asks for now."""

        def said(name: str, otherwise: str) -> str:
            return str(origin.registration.get(name, otherwise))

        return cls(
            origin.uod_name,
            origin=origin,
            computer_name=origin.computer_name,
            location=said("location", ""),
            author_name=said("uod_author_name", ""),
            author_email=said("uod_author_email", ""),
            version=said("engine_version", OPENPECTUS_VERSION),
            secret=secret,
            ignore_version_error=ignore_version_error,
            data_log_interval_s=INTERVAL_S,
        )

    def create_register_engine_msg(self) -> em.RegisterEngineMsg:
        """Return the registration of the engine that has ended."""
        filename = str(self.origin.registration.get("uod_filename", ""))
        return evolve(super().create_register_engine_msg(), uod_filename=filename)

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the unit's last description, or else one that has the tags that wait."""
        if self.origin.uod_info is None:
            return super().create_uod_info()
        return foreign(self.origin.uod_info, em.UodInfoMsg)

    def create_method_msg(self) -> em.MethodMsg:
        """Return the last known method."""
        if self.origin.method is None:
            return super().create_method_msg()
        return foreign(self.origin.method, em.MethodMsg)

    def read_tags(self) -> list[mdl.TagValue]:
        """Return the tags without values; only their names and units are used."""
        return [
            mdl.TagValue(name=name, tick_time=0.0, value_unit=unit)
            for name, unit in self.origin.tags.items()
        ]

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return no tags: everything that the engine sampled already waits in the outbox."""
        return em.TagsUpdatedMsg()

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return None: no tag changes any more."""
        return None
