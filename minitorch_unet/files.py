"""Writing files so that neither a kill nor a full disk can lose the previous version."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from minitorch_unet.errors import DataError


def atomic_write(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that at every moment `path` holds either all of the old content or all of the new.

    The bytes go to `.NAME.partial` in the same folder and are flushed to the disk, the file is renamed onto
    `path`, and the folder is flushed, so that the rename itself survives a power cut. One writer per path at
    a time; what a killed writer leaves behind is overwritten by the next one.

    content: the bytes, or a function that writes them to the binary stream it is given.

    Raises DataError (one line) where the file cannot be written; `path` is then as it was before, unless the
    message says that only the folder's flush failed. Any other exception of `content` passes through and
    likewise leaves no trace on the disk.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as stream:
            if callable(content):
                content(stream)
            else:
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        if isinstance(error, OSError):
            kept = "; the previous file is unchanged" if path.is_file() else ""
            raise DataError(f"cannot write {path}: {_reason(error)}{kept}") from error
        raise
    try:
        _flush_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"wrote {path}, but its folder could not be flushed to the disk: {_reason(error)}; "
            "a power cut may bring the previous file back"
        ) from error


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such call for folders: nothing is wrong with the file there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
