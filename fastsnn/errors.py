"""Errors whose message is for the user."""


class BackendError(RuntimeError):
    """A backend was asked for and cannot run; the message says why and what to do."""


class DeployError(RuntimeError):
    """A file cannot be written or read, or does not fit the network; the message says why."""


class RunError(Exception):
    """A run cannot start or go on; the message is for the user."""


class DataError(RunError, ValueError):
    """A data set is missing, damaged or not what it was asked to be; the message says which file and what to do."""
