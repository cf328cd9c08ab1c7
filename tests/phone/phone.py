"""A phone for the tests: a sandbox and an adb daemon, reached through the real adb client."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from .daemon import Daemon, Service, Stream
from .faults import Fault, Faults
from .file_service import FileService
from .sandbox import Sandbox, arm64_cpuinfo, build_system, host_cpuinfo, write_sys
from .shell_service import ShellService
from .spec import PhoneSpec

FORGET_TIMEOUT_S = 20


class EmulatedPhone:
    """A phone that `adb` reaches at `serial`; everything of it lies under `folder`.

    `data` is the phone's /data. `system` is a /system from `build_system`, which several phones
    may share; without one, the phone makes its own. `adb` and `server_port` are the client that
    connects to the phone and the port of its private server.
    """

    def __init__(
        self,
        folder: Path,
        spec: PhoneSpec | None = None,
        *,
        adb: Path,
        server_port: int,
        system: Path | None = None,
    ):
        self.folder, self.spec = folder, spec or PhoneSpec()
        self.data = folder / "data"
        self.state_folder = folder / "state"
        self.commands: list[str] = []
        self.faults = Faults()
        self._adb = [str(adb), "-P", str(server_port)]
        self._system = system
        self._sandbox: Sandbox | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        properties = self.spec.all_properties()
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        banner = {name: properties.get(name, "") for name in names}
        self._daemon = Daemon(self._service_of, self.faults, banner)

    # -- life ------------------------------------------------------------------------------

    @property
    def serial(self) -> str:
        """What adb calls the phone."""
        return f"127.0.0.1:{self._daemon.port}"

    def start(self) -> EmulatedPhone:
        """Build the phone, let it listen, and connect adb to it."""
        self._write_folders()
        system = self._system or build_system(self.folder / "system", self.spec.abi)
        self._sandbox = Sandbox(self.folder, system, self.spec.abi)
        self._sandbox.start()
        self._thread.start()
        self._do(self._daemon.listen())
        self._connect()
        return self

    def stop(self) -> None:
        """Let adb forget the phone, and end everything that runs on it."""
        if self._thread.is_alive():
            self.remove()
            self._do(self._end_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        if self._sandbox is not None:
            self._sandbox.stop()
        if self._daemon.problems:
            raise ExceptionGroup("the phone itself failed", self._daemon.problems)

    def __enter__(self) -> EmulatedPhone:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the link --------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, int]:
        """How many positions of each kind passed since `reset_counters`."""
        return dict(self.faults.counters)

    def reset_counters(self) -> None:
        """Count from zero."""
        self.faults.counters.clear()

    def arm(self, *faults: Fault) -> None:
        """Let faults happen; their positions are counted from now. Each happens once."""
        self.faults.arm(*faults)

    def clear_faults(self) -> None:
        """Take away what is armed; a link that is cut or stalled stays so until `reconnect`."""
        self.faults.clear()

    @property
    def fired(self) -> list[Fault]:
        """The faults that happened."""
        return list(self.faults.fired)

    def cut(self) -> None:
        """Reset the link now; the phone is gone until `reconnect`. adb calls it offline."""
        self._do(self._vanish())

    def remove(self) -> None:
        """As if the cable were pulled for good: gone, and no longer in adb's list."""
        self.cut()
        # Until adb has forgotten the old link, it would take a new one for the same.
        until = time.monotonic() + FORGET_TIMEOUT_S
        while time.monotonic() < until:
            self._run_adb("disconnect", self.serial)
            listed = self._run_adb("devices").split()
            if self.serial not in listed:
                return
            time.sleep(0.02)
        raise RuntimeError(f"adb still lists {self.serial} {FORGET_TIMEOUT_S} s later")

    def reconnect(self) -> None:
        """Make the phone reachable again, and wait until adb calls it a device."""
        self._daemon.reach = "device"
        self.remove()
        self._do(self._daemon.listen())
        self._connect()

    def become_unauthorized(self) -> None:
        """As when the user of the phone hasn't yet allowed this host; `reconnect` allows it."""
        self._daemon.reach = "unauthorized"
        self.remove()
        self._do(self._daemon.listen())
        self._run_adb("connect", self.serial)

    # -- what the phone tells --------------------------------------------------------------

    def state(self, name: str) -> str:
        """What a file of /state has in it, as `settings/global/low_power`; "" without one."""
        file = self.state_folder / name
        return file.read_text().removesuffix("\n") if file.exists() else ""

    def set_state(self, name: str, value: object) -> None:
        """Change what the phone's tools tell; the files are listed in `_write_folders`."""
        (self.state_folder / name).write_text(f"{value}\n")

    @property
    def calls(self) -> list[str]:
        """Calls of getprop, dumpsys, cmd, svc, settings and input, in order."""
        return self.state("calls").splitlines()

    def set_thermal_status(self, status: int) -> None:
        """0 none, 1 light, 2 moderate, 3 severe, ..."""
        self.set_state("thermal_status", status)

    def set_temperature(self, name: str, degrees: float) -> None:
        """In degrees Celsius; a name that begins with cpu, gpu or battery is of that type."""
        self.set_state(f"temperatures/{name}", degrees)

    def set_thermal_script(self, steps: Sequence[int | tuple[int, Mapping[str, float]]]) -> None:
        """What each coming look at `dumpsys thermalservice` tells: a status, or it and degrees.

        After the last step the phone stays as that one left it.
        """
        lines = []
        for step in steps:
            status, degrees = (step, {}) if isinstance(step, int) else step
            lines.append(" ".join([str(status), *(f"{n} {d}" for n, d in degrees.items())]))
        (self.state_folder / "thermal_script").write_text("".join(f"{line}\n" for line in lines))

    def set_frequency(self, core: int, khz: int) -> None:
        """What the kernel says a core runs at."""
        own = self.folder / f"sys/devices/system/cpu/cpu{core}"
        (own / "cpufreq/scaling_cur_freq").write_text(f"{khz}\n")

    # -- inside ----------------------------------------------------------------------------

    def _write_folders(self) -> None:
        temperatures = {"skin": 31.5, "cpu0": 38.0, "gpu0": 36.5, "battery": 28.5}
        (self.data / "local/tmp").mkdir(parents=True)
        for name in ("properties", "temperatures", "settings/system", "settings/secure"):
            (self.state_folder / name).mkdir(parents=True)
        (self.state_folder / "settings/global").mkdir()
        for name, value in self.spec.all_properties().items():
            self.set_state(f"properties/{name}", value)
        for name, degrees in temperatures.items():
            self.set_temperature(name, degrees)
        told: dict[str, object] = {
            "thermal_status": 0,
            "wakefulness": "Awake",
            "charging": "usb",
            "battery_level": 87,
            "battery_temperature": 285,
            "fixed_performance": "false",
            "settings/global/low_power": 0,
            "settings/global/stay_on_while_plugged_in": 0,
        }
        if self.spec.fixed_performance:
            told["fixed_performance_supported"] = ""
        for name, content in told.items():
            self.set_state(name, content)
        for name in ("calls", "thermal_script"):
            (self.state_folder / name).write_text("")
        cores = self.spec.cores
        write_sys(self.folder / "sys", cores, temperatures)
        arm64 = self.spec.abi != "x86_64"
        text = arm64_cpuinfo(len(cores), self.spec.soc[1]) if arm64 else host_cpuinfo(len(cores))
        (self.folder / "cpuinfo").write_text(text)

    def _service_of(self, service: str) -> Service | None:
        sandbox = self._sandbox
        assert sandbox is not None
        name, _, command = service.partition(":")
        packets = name.startswith("shell,v2")
        if packets or name in ("shell", "exec") or name.startswith("shell,"):
            self.commands.append(command)

            def run(stream: Stream) -> Coroutine[Any, Any, None]:
                return ShellService(stream, command, sandbox.run, packets=packets).serve()

            return run
        if service == "sync:":
            return lambda stream: FileService(stream, sandbox.resolve).serve()
        return None

    async def _end_tasks(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _vanish(self) -> None:
        self._daemon.vanish()
        await self._daemon.settle()

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def _run_adb(self, *words: str) -> str:
        done = subprocess.run(
            [*self._adb, *words], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout + done.stderr

    def _connect(self) -> None:
        told = self._run_adb("connect", self.serial)
        state = self._run_adb("-s", self.serial, "wait-for-device", "get-state")
        if state.strip() != "device":
            raise RuntimeError(f"adb does not reach the phone: {told} {state}")
