"""The error class for files that cannot be used, and its kinds that are told apart."""


class DataError(ValueError):
    """A file or folder is missing, truncated, damaged or not supported.

    The message is one line that names the file, so a command line can print it as it is and stop.
    """


class FieldOfViewError(DataError):
    """The label files are masks of a camera's field of view."""
