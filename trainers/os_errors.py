"""What to do about a file that cannot be read or written, for the message that ends a command."""

import errno

_NO_SPACE = "Free some space"
_NO_PERMISSION = "Allow this user to write there, or choose another place"
_GONE = "Find out what has removed it, or choose another place"
_BAD_DISK = "Check the disk"

_CURES = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "Make the file system writable, or choose another place",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.ESTALE: _GONE,
    errno.EIO: _BAD_DISK,
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "Raise the system's limit of open files",
}


def explain_os_error(error: OSError) -> str:
    """Returns one line: what failed, with which file if that is known, and what may help.

    Args:
        error: Of the operating system, or of a file system of TensorFlow, which names its path.
    """
    if error.errno is None or error.strerror is None:
        return str(error)
    place = f"{error.filename}: " if error.filename is not None else ""
    cure = _CURES.get(error.errno)
    advice = f" {cure}; then run the same command again." if cure else ""
    return f"{place}{error.strerror}.{advice}"
