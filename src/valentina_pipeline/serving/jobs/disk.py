"""Words for a disk that takes no files."""

import errno

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""The disk is full, has too many files, is over a quota, or read-only."""


def no_room(what: str, err: OSError) -> str:
    """Return what to do where files cannot be written, without their paths: clients read it."""
    said = (err.strerror or type(err).__name__).lower()
    return f"{what} cannot be written ({said}): make room on the server's disk; what was accepted waits"
