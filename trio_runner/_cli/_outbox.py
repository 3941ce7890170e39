"""`trio-runner outbox`: what a person can do with an engine's outbox."""

import io
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from trio_runner import OutboxDamaged, OutboxError, OutboxInUse
from trio_runner._cli._summary import count
from trio_runner._outbox_sqlite import (
    OutboxSummary,
    SetAside,
    discard,
    examine,
    export,
    is_locked,
    requeue,
    summarize,
)

FAILED = 1
"""The exit code for an outbox that cannot be used, and for a question answered with no."""

WRONG_ARGUMENTS = 2

CHANGING = {"deliver", "requeue", "discard"}
"""The actions that need an engine that has ended."""


def run(arguments: Namespace) -> int:
    """Carry out one of the actions; return the exit code."""
    actions = {
        "show": _show,
        "export": _export,
        "check": _check,
        "deliver": _send,
        "requeue": _requeue,
        "discard": _discard,
    }
    try:
        if arguments.action in CHANGING:
            _refuse_if_in_use(arguments.path)
        return actions[arguments.action](arguments)
    except OutboxError as error:
        return _fail(arguments, str(error), FAILED)


def _fail(arguments: Namespace, text: str, code: int) -> int:
    print(f"trio-runner outbox {arguments.action}: error: {text}", file=sys.stderr)
    return code


def _is_in_use(path: str) -> bool:
    try:
        return Path(path).is_file() and is_locked(Path(path))
    except OSError:  # the action itself will report this
        return False


def _refuse_if_in_use(path: str) -> None:
    if _is_in_use(path):
        raise OutboxInUse(
            f"The outbox {path} is in use by a running engine, which delivers its messages itself."
            " Stop that engine first."
        )


# show


def _show(arguments: Namespace) -> int:
    print(*lines(summarize(arguments.path)), sep="\n")
    return 0


def lines(summary: OutboxSummary) -> Iterator[str]:
    """Yield the lines that describe an outbox."""
    yield f"Outbox {summary.path} (schema {summary.schema}, file of {_size(summary.file_bytes)})"
    if summary.is_in_use:
        yield f"in use       by a running engine, as of {_time(summary.taken_at)}"
    if summary.fault is not None:
        yield f"DAMAGED      in its write-ahead log, {summary.fault}: what follows is lost"
    yield f"unit         {summary.unit or 'none yet'}"
    yield f"open run     {summary.open_run or 'none'}"
    yield f"waiting      {count(summary.waiting, 'message')}, {_size(summary.bytes)}"
    for kind, number in summary.counts.items():
        yield f"  {number:8}   {_kind(kind)}"
    if summary.oldest is not None and summary.newest is not None:
        yield f"oldest       {_time(summary.oldest)}"
        yield f"newest       {_time(summary.newest)}"
    if summary.maybe_arrived:
        yield f"sent before  {summary.maybe_arrived} of these: may have arrived, will be sent again"
    yield f"set aside    {_set_aside(summary)}"
    yield from map(_line_of, summary.set_aside)


def _set_aside(summary: OutboxSummary) -> str:
    text = count(len(summary.set_aside), "message")
    if summary.set_aside_dropped:
        text += f", and {summary.set_aside_dropped} older ones that are no longer kept"
    return text


def _line_of(message: SetAside) -> str:
    reason = " ".join(message.reason.split())
    return (
        f"  {message.sequence_number:8}   {_kind(message.kind)}, {_time(message.taken_at)},"
        f" {_size(message.bytes)}: {reason}"
    )


def _kind(name: str) -> str:
    return name.removesuffix("Msg")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _size(number: int) -> str:
    if number < 10_000:
        return count(number, "byte")
    return f"{number / 1e3:.0f} kB" if number < 10_000_000 else f"{number / 1e6:.0f} MB"


# export


def _export(arguments: Namespace) -> int:
    if _is_in_use(arguments.path):
        now = _time(time.time())
        print(f"{arguments.path} is in use by a running engine, as of {now}.", file=sys.stderr)
    if arguments.output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # JSON's encoding, whatever the terminal's is
        export(arguments.path, sys.stdout, set_aside=arguments.set_aside)
        return 0
    try:
        number = _export_to(arguments)
    except OSError as error:
        text = f"argument --output: cannot write {arguments.output}: {error.strerror}"
        return _fail(arguments, text, WRONG_ARGUMENTS)
    print(f"{count(number, 'message')} written to {arguments.output}.")
    return 0


def _export_to(arguments: Namespace) -> int:
    """Write a new file. If the outbox cannot be read, remove the file if it has no line yet."""
    is_empty = False
    try:
        with _new_file(arguments.output) as file:
            try:
                return export(arguments.path, file, set_aside=arguments.set_aside)
            finally:
                is_empty = not file.tell()
    except OutboxError:
        if is_empty:
            Path(arguments.output).unlink()
        raise


def _new_file(path: str) -> TextIO:
    """Open a file that does not exist yet, for its owner alone, as the outbox is."""
    return open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))


# check


def _check(arguments: Namespace) -> int:
    try:
        found = examine(arguments.path)
    except OutboxDamaged as error:
        return _fail(arguments, str(error), FAILED)
    if found.is_in_use:
        print(f"In use by a running engine, as of {_time(found.taken_at)}.")
    if found.log_fault is None and not found.faults:
        print(f"{arguments.path} is intact, with {count(found.messages, 'message')} in it.")
        return 0
    print(f"{arguments.path} IS DAMAGED; {count(found.messages, 'message')} in it can be read:")
    if found.log_fault is not None:
        print(f"  in its write-ahead log, {found.log_fault}: what follows is lost")
    for fault in found.faults:
        print(f"  {fault}")
    print(_what_to_do(arguments.path, is_readable=not found.faults))
    return FAILED


def _what_to_do(path: str, *, is_readable: bool) -> str:
    if is_readable:
        return (
            "The next engine that opens it uses what comes before the damage, and keeps a copy of"
            " the files. Check the disk and its cables: data that was written has been lost."
        )
    return (
        "Stop the engine and save what can be read: `trio-runner outbox export --output FILE"
        f" {path}`. When the engine starts again, it sets aside what is damaged. If it says that"
        " it cannot use the file, move the file away. Check the disk: data that was written has"
        " been lost."
    )


# deliver


def _send(arguments: Namespace) -> int:
    from trio_runner._cli import _deliver  # it imports Trio, which takes a while

    return _deliver.run(arguments)


# requeue


def _requeue(arguments: Namespace) -> int:
    result = requeue(arguments.path)
    verb = "waits" if result.waiting == 1 else "wait"
    print(f"{count(result.waiting, 'message')} {verb} again in {arguments.path}.")
    if result.too_late:
        print(
            f"{_stay_aside(result.too_late)}: their run has ended at the aggregator, which would"
            " throw them away, or end another run because of them."
        )
    if result.spoilt:
        print(f"{_stay_aside(result.spoilt)}: the disk has damaged them.")
    return 0


def _stay_aside(number: int) -> str:
    return f"{count(number, 'message')} {'stays' if number == 1 else 'stay'} set aside"


# discard


def _discard(arguments: Namespace) -> int:
    try:
        summary = summarize(arguments.path)
    except OutboxDamaged as error:
        return _delete(arguments, f"{error} Delete it for good, with everything in it?")
    number = summary.waiting + len(summary.set_aside)
    if not number:
        print(f"There are no messages in {arguments.path}.")
        return 0
    return _delete(arguments, f"Delete {count(number, 'message')} for good?", number)


def _delete(arguments: Namespace, question: str, number: int | None = None) -> int:
    if not arguments.yes and not _is_terminal():
        text = "there is no terminal to ask on: give --yes to delete without being asked"
        return _fail(arguments, text, WRONG_ARGUMENTS)
    if not arguments.yes and not _says_yes(question):
        print("Nothing was deleted.")
        return FAILED
    discard(arguments.path)
    deleted = arguments.path if number is None else count(number, "message")
    print(f"Deleted {deleted}.")
    return 0


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _says_yes(question: str) -> bool:
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes")
