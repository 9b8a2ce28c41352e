"""The one error class for files that cannot be used."""


class DataError(ValueError):
    """A file or folder is missing, truncated, damaged or not supported.

    The message is one line that names the file, so a command line can print it as it is and stop.
    """
