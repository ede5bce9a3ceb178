"""Why a server did not do what it was asked, in words for the person at the terminal.

Every library has exceptions of its own; they are told apart by what they have in common, so that
none of the libraries has to be installed. What they say may hold URLs with signatures in them,
which are never repeated.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ckgrow.cancelling import CancelledError
from ckgrow.errors import CkgrowError, FileError
from ckgrow.names import shown_path

_URL = re.compile(r"\w+://[^\s'\"]+")
_LONGEST = 200
_TOO_MANY = 429
_GONE = (404, 410)


@contextmanager
def told(place: str, doing: str) -> Iterator[None]:
    """Failures of libraries become FileErrors: ``place`` cannot be ``doing`` (opened, read)."""
    try:
        yield
    except (CkgrowError, CancelledError):
        raise
    except Exception as failure:  # noqa: BLE001 - the libraries raise whatever they like
        raise FileError(f"{place} cannot be {doing}: {reason(failure)}") from None


def is_passing(failure: Exception) -> bool:
    """Whether it may go well the next time."""
    status = _status(failure)
    if status is not None:
        return status == _TOO_MANY or status >= 500
    lasting = FileNotFoundError, PermissionError, ValueError, TypeError, ImportError
    return not isinstance(failure, (*lasting, NotImplementedError, CancelledError))


def reason(failure: Exception) -> str:
    """What went wrong, and what to do about it."""
    status = _status(failure)
    text = _text(failure)
    if isinstance(failure, TimeoutError):
        return f"{text or 'the server does not answer'}; try again, or from nearer by"
    if "Credentials" in type(failure).__name__:
        return f"{text}; log in as for the tools of that store"
    if isinstance(failure, PermissionError) or status in (401, 403):
        return (
            "permission denied; check the URL, and the credentials that the tools of that store use"
        )
    if status is not None and status not in _GONE:
        return f"the server answered with status {status}; try again later"
    if is_missing(failure):
        missing = "bucket" if is_bucket_missing(failure) else "file"
        return f"no such {missing}; check the URL"
    if isinstance(failure, NotImplementedError):
        return text or "its kind of URL is for reading; write a file here and copy it there"
    if "connect" in type(failure).__name__.lower():
        return f"no connection to the server ({text}); check the URL, and try again later"
    return f"{text or type(failure).__name__}; try again later"


def is_missing(failure: Exception) -> bool:
    """Whether there is no such file."""
    status = _status(failure)
    return isinstance(failure, FileNotFoundError) if status is None else status in _GONE


def is_unsupported(failure: Exception) -> bool:
    """Whether it is something that this server never does."""
    return isinstance(failure, NotImplementedError) or (
        getattr(failure, "errno", None) == errno.ENOSYS
    )


def is_bucket_missing(failure: Exception) -> bool:
    """Whether not even that is there in which the file would be."""
    return isinstance(failure, FileNotFoundError) and "bucket" in str(failure)


def _status(failure: BaseException) -> int | None:
    """The HTTP status in an exception, or in the one that it hides."""
    for each in (failure, failure.__cause__):
        response = getattr(each, "response", None)
        for status in (getattr(each, "status", None), getattr(response, "status_code", None)):
            if isinstance(status, int):
                return status
    return None


def _text(failure: Exception) -> str:
    """The library's own words on one line, without the secrets of a URL."""
    words = getattr(failure, "strerror", None) or str(failure)
    line = _URL.sub(lambda found: shown_path(found[0]), " ".join(str(words).split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
