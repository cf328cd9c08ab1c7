"""The phone's inside: folders like Android's, entered through bubblewrap.

One sandbox runs as long as the phone; every command joins its namespaces, so that commands see
each other's processes and files as on a real phone. /data is a folder of the host, tools are
busybox's under the names that Android's toybox has, the shell is Android's own (mksh), and
scripts stand for getprop, dumpsys, cmd, svc, settings and input: they keep their state in files
under /state, one value a file, and note their calls in /state/calls.
"""

from __future__ import annotations

import json
import os
import platform
import posixpath
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import libraries

SCRIPTS = Path(__file__).parent / "system_bin"
TOOLS = (Path(__file__).parent / "tools.txt").read_text().split()
"""What both Android's toybox and busybox have."""

HOST_TOOLS = ("cksum", "comm", "flock", "nice", "nohup", "pgrep", "pkill")
"""Tools that Android has and busybox hasn't: taken from this host where it has them."""

SHELL_USER = 2000
ENVIRONMENT = {
    "ANDROID_DATA": "/data",
    "ANDROID_ROOT": "/system",
    "HOME": "/",
    "HOSTNAME": "localhost",
    "LOGNAME": "shell",
    "PATH": "/system/bin",
    "SHELL": "/system/bin/sh",
    "TMPDIR": "/data/local/tmp",
    "USER": "shell",
}
PACKAGES = {
    "bwrap": "bubblewrap",
    "busybox": "busybox-static",
    "mksh": "mksh",
    "nsenter": "util-linux",
}
LOADERS = {
    "x86_64": Path("/lib64/ld-linux-x86-64.so.2"),
    "arm64-v8a": libraries.ARM64_ROOT / "lib/ld-linux-aarch64.so.1",
}
OWN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
FIRST_COMMAND = ["/system/bin/sh", "-c", "echo ready; read for_ever"]


@dataclass(frozen=True)
class Core:
    """One core as /sys tells of it; `capacity` is the fastest kind's 1024 or less."""

    max_khz: int = 2_000_000
    capacity: int = 1024
    online: bool = True


def missing(abi: str = "x86_64") -> str | None:
    """What this host lacks to run a phone of an ABI, and where to get it; None when all is here."""
    for name, package in PACKAGES.items():
        if shutil.which(name) is None:
            return f"there is no {name}; apt-get install {package}"
    trial = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc"]
    tried = subprocess.run([*trial, "true"], capture_output=True, text=True, timeout=30)
    if tried.returncode:
        return f"bwrap may not make a sandbox here: {tried.stderr.strip()}"
    if abi != "x86_64":
        mount = ["mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc"]
        tried = subprocess.run([*OWN_NAMESPACE, *mount], capture_output=True, text=True, timeout=30)
        if tried.returncode:
            return f"this needs Linux 6.7 or later with binfmt_misc: {tried.stderr.strip()}"
    return None


def build_system(folder: Path, abi: str) -> Path:
    """Write /system of phones of this ABI into `folder`; phones may share it."""
    tools, system_libraries = folder / "bin", folder / "lib64"
    tools.mkdir(parents=True)
    (folder / "etc").mkdir()
    shutil.copy(_found("mksh"), tools / "sh")
    shutil.copy(_found("busybox"), tools / "toybox")
    for name in TOOLS:
        (tools / name).symlink_to("toybox")
    for name in HOST_TOOLS:
        if found := shutil.which(name):
            shutil.copy(found, tools / name)
    for script in SCRIPTS.iterdir():
        shutil.copy(script, tools / script.name)
        (tools / script.name).chmod(0o755)
    build = libraries.shim if abi == "x86_64" else libraries.shim_arm64
    build(system_libraries)
    shutil.copy(LOADERS[abi].resolve(), tools / "linker64")
    return folder


def write_sys(folder: Path, cores: tuple[Core, ...], zones: Mapping[str, float]) -> None:
    """Write /sys: the cores with their frequencies, and the thermal zones with their degrees."""
    cpu = folder / "devices/system/cpu"
    every = _ranges(list(range(len(cores))))
    online = _ranges([index for index, core in enumerate(cores) if core.online])
    texts = {cpu / name: every for name in ("possible", "present")}
    texts |= {cpu / "online": online, cpu / "kernel_max": str(len(cores) - 1)}
    for index, core in enumerate(cores):
        own = cpu / f"cpu{index}"
        frequency = own / "cpufreq"
        peers = [peer for peer, other in enumerate(cores) if other == core]
        texts |= {
            own / "online": str(int(core.online)),
            own / "cpu_capacity": str(core.capacity),
            frequency / "cpuinfo_max_freq": str(core.max_khz),
            frequency / "cpuinfo_min_freq": "300000",
            frequency / "scaling_max_freq": str(core.max_khz),
            frequency / "scaling_cur_freq": str(core.max_khz),
            frequency / "scaling_governor": "schedutil",
            frequency / "related_cpus": " ".join(map(str, peers)),
            own / "topology/core_id": str(index),
            own / "topology/physical_package_id": "0",
            own / "topology/core_siblings_list": every,
            own / "topology/thread_siblings_list": str(index),
        }
    for index, (name, degrees) in enumerate(zones.items()):
        zone = folder / f"class/thermal/thermal_zone{index}"
        texts |= {zone / "type": name, zone / "temp": str(round(degrees * 1000))}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


class Sandbox:
    """A running sandbox over `folder`, which has `data`, `state`, `sys` and `cpuinfo` in it."""

    def __init__(self, folder: Path, system: Path, abi: str):
        self.folder = folder
        self._system = system
        self._abi = abi
        self._inside: subprocess.Popen[bytes] | None = None
        self._first_process = 0
        self._commands: list[subprocess.Popen[bytes]] = []
        self._environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": "/system/lib64"}
        if abi != "x86_64":
            self._environment["LD_LIBRARY_PATH"] += f":{libraries.ARM64_ROOT}/lib"

    def start(self) -> None:
        """Make the namespaces; they last until `stop`, or until this program ends."""
        told, tell = os.pipe()
        asked, ask = os.pipe()
        with os.fdopen(told) as answer, os.fdopen(ask, "w") as words:
            # By a pipe, so that the phone's `ps` doesn't show this host's paths.
            words.write("\0".join(self._bubblewrap(tell)) + "\0")
            words.flush()
            self._inside = subprocess.Popen(
                [*self._outer(), "bwrap", "--args", str(asked), *FIRST_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[asked, tell],
            )
            words.close()
            os.close(asked)
            os.close(tell)
            assert self._inside.stdout is not None
            if not self._inside.stdout.readline():
                raise RuntimeError("the phone's sandbox did not start; what bwrap wrote is above")
            self._first_process = json.loads(answer.read())["child-pid"]

    def stop(self) -> None:
        """End all processes of the phone."""
        if self._inside is not None:
            if self._first_process and self._inside.poll() is None:
                os.kill(self._first_process, signal.SIGKILL)  # all of a namespace die with it
            self._inside.communicate()
            self._inside = None
        for command in self._commands:
            command.wait()

    def run(self, command: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command line in the phone's shell; an empty one reads commands from its input."""
        enter = [_found("nsenter"), f"--target={self._first_process}", "--preserve-credentials"]
        enter += ["--user", "--mount", "--ipc", "--pid", "--"]
        shell = ["/system/bin/sh", "-c", command] if command else ["/system/bin/sh"]
        started: subprocess.Popen[bytes] = subprocess.Popen(
            [*enter, *shell], env=self._environment, start_new_session=True, **streams
        )
        self._commands = [command for command in self._commands if command.poll() is None]
        self._commands.append(started)
        return started

    def resolve(self, path: str) -> Path:
        """Where a path of the phone lies on this host. OSError where no path can lead out."""
        clean = posixpath.normpath("/" + path.lstrip("/"))
        places = {
            "/data": self.folder / "data",
            "/sys": self.folder / "sys",
            "/system": self._system,
            "/state": self.folder / "state",
        }
        if clean == "/":
            return self.folder
        for name, place in places.items():
            if clean == name or clean.startswith(name + "/"):
                found = place / clean.removeprefix(name).lstrip("/")
                if not found.resolve().is_relative_to(place.resolve()):
                    raise PermissionError(13, "Permission denied")
                return found
        raise FileNotFoundError(2, "No such file or directory")

    def _bubblewrap(self, told: int) -> list[str]:
        folder, system = self.folder, self._system
        words = ["--unshare-user", "--unshare-pid", "--unshare-ipc"]
        words += ["--uid", str(SHELL_USER), "--gid", str(SHELL_USER), "--info-fd", str(told)]
        words += ["--proc", "/proc", "--dir", "/sdcard", "--clearenv"]
        # Not --dev: it would nest a second user namespace, which only root may join later.
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        for name, place in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            words += ["--symlink", f"/proc/self/fd{place}", f"/dev/{name}"]
        for place in ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64"):
            host = Path(place)
            if host.is_symlink():
                words += ["--symlink", str(host.readlink()), place]
            elif host.is_dir():
                words += ["--ro-bind", place, place]
        if self._abi != "x86_64":
            words += ["--ro-bind", str(libraries.ARM64_ROOT), str(libraries.ARM64_ROOT)]
        for host, place in ((system, "/system"), (folder / "data", "/data")):
            words += ["--ro-bind", str(host), place]
        for name in ("data/local/tmp", "state"):
            words += ["--bind", str(folder / name), f"/{name}"]
        words += ["--ro-bind", str(folder / "sys"), "/sys"]
        words += ["--ro-bind", str(folder / "cpuinfo"), "/proc/cpuinfo"]
        words += ["--symlink", "/system/bin", "/bin", "--symlink", "/system/etc", "/etc"]
        return words

    def _outer(self) -> list[str]:
        """For arm64: words that make the kernel run arm64 programs by qemu, in there alone.

        binfmt_misc belongs to a user namespace since Linux 6.7; the host's own is not touched.
        """
        if self._abi == "x86_64":
            return []
        place = self.folder / "binfmt"
        place.mkdir(exist_ok=True)
        script = (
            'mount -t binfmt_misc none "$0" && printf %s "$1" > "$0/register" && shift && exec "$@"'
        )
        magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
        mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
        rule = f":arm64:M::{magic}:{mask}:{libraries.qemu_arm64()}:F"
        return [*OWN_NAMESPACE, "/bin/sh", "-c", script, str(place), rule]


def host_cpuinfo(cores: int) -> str:
    """What /proc/cpuinfo of this host says of its first cores."""
    if platform.machine() != "x86_64":
        return ""
    return "\n\n".join(Path("/proc/cpuinfo").read_text().split("\n\n")[:cores]) + "\n\n"


def arm64_cpuinfo(cores: int, hardware: str) -> str:
    """/proc/cpuinfo as arm64 kernels write it."""
    one = "BogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm aes crc32 atomics asimddp\n"
    one += "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd05\n"
    every = "\n".join(f"processor\t: {index}\n{one}" for index in range(cores))
    return f"{every}\nHardware\t: {hardware}\n"


def _found(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no {name}; apt-get install {PACKAGES[name]}")
    return found


def _ranges(numbers: list[int]) -> str:
    """0,1,2,5 as the kernel writes it: 0-2,5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
