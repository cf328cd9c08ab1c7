"""Phones by adb: the only caller of the adb program. Its words are quoted, its calls bounded."""

from .call import LinkLostError
from .client import Adb, AdbDevice, find_adb
from .files import FOLDER
from .link import AdbLink
from .process import RemoteProcess
from .shell import ShellResult

__all__ = [
    "FOLDER",
    "Adb",
    "AdbDevice",
    "AdbLink",
    "LinkLostError",
    "RemoteProcess",
    "ShellResult",
    "find_adb",
]
