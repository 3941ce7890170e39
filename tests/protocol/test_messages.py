import time
from typing import Any

import attrs
import pytest

from tests.helpers.recorded import MESSAGES
from tests.protocol.instances import CLASSES, ENUMS, name_of
from trio_runner.protocol import OPENPECTUS_VERSION
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

FIELDS: dict[str, dict[str, Any]] = {
    name.replace("aggregator.models.", "models.").removeprefix("protocol."): fields
    for name, fields in MESSAGES["fields"].items()
}
OURS = {name_of(cls): cls for cls in CLASSES}

# The same type in other words. The last two differ on the wire and after decoding.
SAME_TYPE = {
    "Union[Literal['str'], Literal['int'], Literal['float'], Literal['auto'], NoneType]": (
        "Optional[Literal['str', 'int', 'float', 'auto']]"
    ),
    "Optional[int]": "int | None",
    "dict[str | int | float, str]": "dict[str, str]",
    "set[str]": "frozenset[str]",
}


def _type_name(tp: Any) -> str:
    if isinstance(tp, type) and not hasattr(tp, "__args__"):
        return tp.__name__
    return str(tp).replace("trio_runner.protocol.models.", "").replace("typing.", "")


def _their_type_name(name: str) -> str:
    for prefix in ("protocol.models.", "aggregator.models."):
        name = name.replace(prefix, "")
    name = name.replace("Annotated[int, Ge(ge=0)]", "int")
    return SAME_TYPE.get(name, name)


def _default(attribute: Any) -> Any:
    default = attribute.default
    return default.factory() if hasattr(default, "factory") else default


def test_there_are_exactly_the_classes_of_open_pectus() -> None:
    """No class of the protocol is missing and none is made up."""
    assert sorted(OURS) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_class_has_the_fields_of_open_pectus_in_its_order(name: str) -> None:
    """Fields have the names, the order and the types that are on the wire."""
    ours = {a.name: _type_name(a.type) for a in attrs.fields(OURS[name])}
    theirs = {field: _their_type_name(facts["type"]) for field, facts in FIELDS[name].items()}
    assert list(ours.items()) == list(theirs.items())


@pytest.mark.parametrize("name", FIELDS)
def test_required_fields_are_required_and_others_have_the_default(name: str) -> None:
    """A field that Open Pectus requires has no default; any other has that of Open Pectus."""
    for attribute in attrs.fields(OURS[name]):
        facts = FIELDS[name][attribute.name]
        assert (attribute.default is attrs.NOTHING) == facts["required"], attribute.name
        if facts["default"] is not None:
            assert repr(_default(attribute)) == facts["default"], attribute.name


def test_defaults_of_a_notification_are_made_anew() -> None:
    """A notification with only a title has no actions, empty data, and the present time."""
    before_ms = time.time_ns() // 1_000_000
    first, second = (mdl.WebPushNotification(title="T") for _ in range(2))
    assert first.actions == []
    assert first.actions is not second.actions
    assert first.data == mdl.WebPushData(process_unit_id=None, contributor_id=None)
    assert first.timestamp is not None
    assert before_ms <= first.timestamp <= time.time_ns() // 1_000_000


def test_enumerations_have_the_values_of_open_pectus() -> None:
    """Every enumeration is there, with its values in their order."""
    assert {enum.__name__: [m.value for m in enum] for enum in ENUMS} == MESSAGES["enums"]


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
def test_a_record_is_frozen_slotted_and_keyword_only(cls: Any) -> None:
    """No field can be set, no attribute added, and none given by position."""
    assert all(attribute.kw_only for attribute in attrs.fields(cls))
    assert "__dict__" not in dir(cls)
    bare = object.__new__(cls)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        bare.anything = 1


def test_the_secret_is_not_in_the_representation() -> None:
    """A logged registration does not reveal the secret."""
    register = em.RegisterEngineMsg(
        computer_name="c",
        uod_name="u",
        uod_author_name="a",
        uod_author_email="e",
        uod_filename="f",
        location="l",
        engine_version=OPENPECTUS_VERSION,
        secret="s3cret",  # noqa: S106
    )
    assert "s3cret" not in repr(register)


def test_the_version_is_that_of_the_recording() -> None:
    """The version that is claimed is the one from which these messages were recorded."""
    assert MESSAGES["openpectus_version"] == OPENPECTUS_VERSION
