"""Exceptions that come in groups, as they do out of a nursery."""

from collections.abc import Iterator


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group that are no groups themselves, or the one that it is."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def first(error: BaseException) -> BaseException:
    """Return the first exception of a group that is no group itself, or the one that it is."""
    return next(leaves(error))
