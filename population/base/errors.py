"""The exceptions that a caller of the library may want to catch."""

import contextlib
from collections.abc import Iterator


class PopulationError(Exception):
    """The base of the library's own errors."""


class JournalError(PopulationError):
    """The journal cannot be read or written; the files on disk are unchanged."""


class RunMismatchError(PopulationError, ValueError):
    """The journal holds a run that does not match the arguments.

    It has another seed, mode, size or mutator, or other keys in its meta_params.
    """


class ClaimError(PopulationError):
    """An engine needs all slots of a run, but others hold some, or it released them."""


class ParamsError(PopulationError):
    """Saved params are missing, damaged, or do not fit the structure to load into."""


class MisfitError(ParamsError):
    """Saved params are undamaged, but have another structure than the one expected."""


class LostParamsError(ParamsError):
    """Saved params are missing, or are not what was saved.

    A store raises it only if it can tell: an error of the disk, or a structure that
    does not fit, is another `ParamsError`.

    Attributes:
        params: The params of the checkpoint, if known.
    """

    params: object = None


class NoProgressError(PopulationError, RuntimeError):
    """No member of a run can make progress, so that it would never end by itself."""


_OF_THE_RUN = "_population_of_the_run"


def mark_of_the_run(error: BaseException) -> None:
    """Mark an exception of a mutator, or an OSError of a params store: it ends the run.

    A training function may get it from a call of the library.
    """
    with contextlib.suppress(AttributeError, TypeError):
        setattr(error, _OF_THE_RUN, True)


@contextlib.contextmanager
def of_the_run() -> Iterator[None]:
    """Mark exceptions within a `with` block, as `mark_of_the_run` does."""
    try:
        yield
    except BaseException as error:
        mark_of_the_run(error)
        raise


def is_failure(error: BaseException) -> bool:
    """Whether an exception of a training function is a failure of its trial alone.

    One that it has raised `from` another is none if that is none.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PopulationError) or not isinstance(cause, Exception):
            return False
        if getattr(cause, _OF_THE_RUN, False):
            return False
        cause = cause.__cause__
    return True


def closed(place: object) -> JournalError:
    """Return the error for a call on a run that was closed."""
    return JournalError(
        f"This run is closed; it is in {place or 'memory, and gone'}. Construct the "
        "controller again to go on."
    )


def damaged(what: str) -> JournalError:
    """Return the error for a journal with rows that are missing or inconsistent."""
    return JournalError(
        f"The journal is damaged: {what}. It was left as it is. Restore it from a "
        "backup, or start a new run in another log_dir."
    )
