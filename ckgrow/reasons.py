"""Why the system cannot read or write a file, told with what to do about it."""

from __future__ import annotations

import errno

_UNREADABLE = {
    errno.ENOENT: "no such file; check the path",
    errno.EACCES: "permission denied; check the permissions of the file and its folders",
    errno.EPERM: "permission denied; check the permissions of the file and its folders",
    errno.EMFILE: "too many files are open; raise the limit of the shell (ulimit -n)",
}

_UNWRITABLE = {
    errno.ENOSPC: "the disk is full; free space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free space or write elsewhere",
    errno.EFBIG: "the file is larger than the file system or the limit of the shell allows",
    errno.EACCES: "permission denied; check the permissions of the file and its folder",
    errno.EPERM: "permission denied; check the permissions of the file and its folder",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.EISDIR: "it is a directory; name a file in it",
    errno.EMFILE: _UNREADABLE[errno.EMFILE],
}


def unreadable(failure: OSError | ValueError) -> str:
    """Why a file cannot be opened or read, without its path, which the message already names."""
    return _UNREADABLE.get(_number(failure)) or words(failure)


def unwritable(failure: OSError | ValueError) -> str:
    """Why a file cannot be written or get its name, without its path."""
    return _UNWRITABLE.get(_number(failure)) or f"{words(failure)}; choose another name or folder"


def words(failure: Exception) -> str:
    """The system's own words; Python's, where a path could not even be handed to the system."""
    return getattr(failure, "strerror", None) or str(failure)


def _number(failure: Exception) -> int:
    return getattr(failure, "errno", None) or 0
