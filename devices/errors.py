"""The errors that latkit raises: one root, one class for each exit code of the command."""


class LatkitError(Exception):
    """Root of all errors that latkit raises on purpose.

    A message says what went wrong, where, and what to do about it. `exit_code` is what the
    command ends with.
    """

    exit_code = 1


class UsageError(LatkitError):
    """An argument, option or input file that the user gave can't be used."""

    exit_code = 2


class DeviceError(LatkitError):
    """The device, its link or its runtime failed, or is not there."""

    exit_code = 3


class UnstableError(LatkitError):
    """With `--strict`: a measurement did not reach the verdict `stable`."""

    exit_code = 4


class DamagedFileError(LatkitError):
    """A file of ours is damaged, or was written by a newer version."""

    exit_code = 5


class UnreachableTargetError(LatkitError):
    """No architecture of the space is as fast as the target."""

    exit_code = 6
