"""What a caller of the library may want to catch."""


class PopulationError(Exception):
    """The base of the library's own errors."""


class JournalError(PopulationError):
    """The journal cannot be read or written; whatever lies on disk is as it was."""


class RunMismatchError(PopulationError, ValueError):
    """The journal holds a run with other rules, or other keys in its meta_params.

    The rules are its seed, mode, size and mutator.
    """


class ClaimError(PopulationError):
    """All slots of a run are needed, and some are trained by another lessee."""


class ParamsError(PopulationError):
    """Saved params are missing, damaged, or do not fit what they are loaded into."""


class MisfitError(ParamsError):
    """Saved params are whole, and of another structure than what they are read into."""


def closed(place: object) -> JournalError:
    """The error of a call on a run that was closed."""
    return JournalError(
        f"This run is closed; it is in {place or 'memory, and gone'}. Construct the "
        "controller again to go on."
    )


def damaged(what: str) -> JournalError:
    """The error of a journal whose rows do not fit together."""
    return JournalError(
        f"The journal is damaged: {what}. It was left as it is. Restore it from a "
        "backup, or start a new run in another log_dir."
    )
