"""Errors of a disk that accepts no files."""

import errno

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""The disk is full, has too many files, is over a quota, or read-only."""


def no_room(what: str, err: OSError) -> str:
    """Return the message for files that cannot be written. It has no paths, because clients read it."""
    reason = (err.strerror or type(err).__name__).lower()
    return f"{what} cannot be written ({reason}): free disk space on the server; accepted jobs wait"
