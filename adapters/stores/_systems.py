"""Which file system of fsspec reaches a URL."""

from __future__ import annotations

from typing import Any

from ckgrow.errors import FileError
from ckgrow.names import shown_path

from ._reasons import told

_EXTRAS = {
    **{"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"},
    **{"http": "https", "https": "https"},
}
"""Which extra of ckgrow installs what a scheme needs."""


def system_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for ``url``, and what that calls the file.

    Raises FileError where none is known, or a package for it is missing.
    """
    scheme = url.partition("://")[0].lower()
    place = shown_path(url)
    extra = _EXTRAS.get(scheme)
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations, registry
    except ImportError:
        raise FileError(_missing(place, extra or "s3")) from None
    if scheme not in known_implementations and scheme not in registry:
        raise FileError(
            f"{place} cannot be opened: nothing is known that reaches {scheme}://; ckgrow reads "
            "s3://, gs://, hf://, https://, and what fsspec has a package for"
        )
    with told(place, "opened"):
        try:
            system, key = url_to_fs(url)
        except ImportError as failure:
            raise FileError(
                _missing(place, extra) if extra else f"{place} cannot be opened: {failure}"
            ) from None
    return system, key


def _missing(place: str, extra: str) -> str:
    return (
        f"{place} cannot be opened: a package for its kind of URL is missing; run "
        f"pip install 'ckgrow[{extra}]'"
    )
