"""Exceptions in groups, as they come out of a nursery."""

from collections.abc import Iterator


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions inside a group that are not groups, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def first(error: BaseException) -> BaseException:
    """Return the first exception inside a group that is not a group, or the exception itself."""
    return next(leaves(error))
