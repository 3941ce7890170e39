"""The P-code commands that every unit has, and how a command is described and checked."""

import re

from attrs import frozen

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl
from trio_runner.simulation.skid._pcode import Line

_VALIDATOR = "RNAP-v1-"
"""The prefix of a validator that is a regular expression, as Open Pectus's editor reads it."""

NUMBER = r"[0-9]+[.]?[0-9]*|[.][0-9]+"
DURATION = rf"(?P<number>{NUMBER}) ?(?P<number_unit>s|min|h)"
NOTHING = ""


@frozen
class Command:
    """A command as the page and its editor describe it.

    `argument` is a regular expression for the text after the colon. `doc` and `example` are shown
    to people; the example is P-code that begins with this command.
    """

    name: str
    argument: str
    doc: str
    example: str

    @property
    def docstring(self) -> str:
        """The documentation and the example, as P-code."""
        return f"# {self.doc}\n{self.example}"

    def definition(self) -> mdl.CommandDefinition:
        """Return the command's definition for the editor."""
        validator = rf"{_VALIDATOR}^\s*(?:{self.argument})\s*$"
        return mdl.CommandDefinition(name=self.name, validator=validator, docstring=self.docstring)

    def check(self, argument: str) -> None:
        """Raise CommandError unless the argument fits this command."""
        if re.fullmatch(self.argument, argument) is None:
            wrong = f"'{argument}' does not fit" if argument else "something is missing"
            example = self.example.splitlines()[0]
            raise CommandError(f"{self.name}: {wrong}; write, for instance, '{example}'")


SYSTEM_COMMANDS = (
    Command("Mark", ".+", "Write a text into the data at this moment.", "Mark: Filter is wet"),
    Command("Notify", ".+", "Send a notification to people.", "Notify: Please take a sample"),
    Command("Wait", DURATION, "Go on after this time.", "Wait: 10 s"),
    Command(
        "Block",
        ".+",
        "Carry out the lines below, until End block.",
        "Block: Flush\n    Wait: 5 s\n    End block",
    ),
    Command("End block", NOTHING, "End the innermost block.", "End block"),
    Command(
        "Watch",
        ".+",
        "Carry out the lines below once, when this comes true; the lines after do not wait for it.",
        "Watch: Inlet pressure > 2 bar\n    Pump: 0 %",
    ),
    Command(
        "Pause",
        rf"(?:{DURATION})?",
        "Bring the unit into its safe state, for this time or until a person ends the pause.",
        "Pause: 1 min",
    ),
    Command(
        "Hold",
        rf"(?:{DURATION})?",
        "Leave the unit as it is, for this time or until a person ends the hold.",
        "Hold: 1 min",
    ),
    Command("Increment run counter", NOTHING, "Add 1 to Run Counter.", "Increment run counter"),
    Command("Stop", NOTHING, "End the run.", "Stop"),
)


def check(line: Line, commands: tuple[Command, ...]) -> None:
    """Raise CommandError if the line is not an instruction, or not one of these commands."""
    if line.error is not None:
        raise CommandError(line.error)
    command = next((command for command in commands if command.name == line.name), None)
    if command is None:
        raise CommandError(f"Unknown command '{line.name}'")
    command.check(line.argument)
