"""The one error a user is meant to read: its text says what is wrong and what to do."""


class WavelldmError(Exception):
    """Raised with one sentence for the user; the command line prints it without a traceback."""


class AudioError(WavelldmError):
    """A sound file or tensor that cannot be used as it is."""


class DataError(WavelldmError):
    """A data set, manifest or download that is not what it should be."""
