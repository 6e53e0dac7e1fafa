"""A pretend OpenWrt device that runs by itself: services, several connections at once, and the power."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

# First: it finds the modules beside this folder.
from layout import readers
from device import HERE, STUB, Device
from readers import Wrong, check

FOLDER = "/tmp/altnet-install"
TOOLS = ("awk", "cut", "tail", "tar", "gzip", "sha256sum", "du", "sort", "ls", "mv", "cp", "chmod", "tr", "basename")
# What a boot doesn't find again.
IN_MEMORY = ("tmp", "run", "control", "dev")
# Busybox's shell runs what it has in itself, whatever is on its path: how much is free, and when something is on flash, is said here.
PROLOGUE = """#!/bin/sh
df() {
	case "$2" in
	/overlay) echo "/dev/mtdblock5 12000 4000 $(cat /dev/flash_kib) 40% /overlay" ;;
	*) echo 'tmpfs 61440 100 61340 1% /tmp' ;;
	esac
}
sync() {
	/usr/lib/stub/step sync
}
"""
LIMIT_S = 120


class PowerCut(BaseException):
    """The power failed."""


class Live(Device):
    """A device whose services run, to which several connections may come at once."""

    def __init__(self, altnet: pathlib.Path, kind: str = "ipk") -> None:
        super().__init__(altnet)
        self.kind = kind
        for tool in TOOLS:
            (self.root / "bin" / tool).symlink_to("busybox")
        for stub in ("step", "altnet", "unpack"):
            self._write(f"usr/lib/stub/{stub}", STUB)
        for stub in ("usr/bin/nslookup", "etc/init.d/network"):
            self._write(stub, STUB)
        # The package brings what Device has already.
        for path in ("usr/bin/altnet", "etc/init.d/altnet", "etc/config/altnet", "etc/uci-defaults/99-altnet", "usr/share/altnet", "lib/upgrade"):
            gone = self.root / path
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        manager = "apk" if kind == "apk" else "opkg"
        self._write(f"bin/{manager}", (HERE / "bin" / manager).read_text())
        self._write("etc/openwrt_release", "DISTRIB_RELEASE='24.10.2'\nDISTRIB_ARCH='x86_64'\n")
        self._write("proc/mounts", "/dev/root /rom squashfs ro 0 0\n/dev/mtdblock5 /overlay jffs2 rw 0 0\n")
        (self.root / "overlay").mkdir()
        self.flash_kib(8000)
        if kind == "apk":
            self._write("etc/apk/arch", "x86_64\n")
        else:
            self._write("usr/lib/opkg/status", "")
        self.services: set[str] = set()
        self.resolves = True
        self.cut_after: int | None = None  # how many more calls there is power for
        self.steps = 0
        self._jobs: list[subprocess.Popen] = []
        self._command: list[str] = []
        self._powered_on()

    def __exit__(self, *_: object) -> None:
        self._power_off()
        super().__exit__()

    def _powered_on(self) -> None:
        self.is_off = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._answer()
        except PowerCut:
            pass

    def _power_off(self) -> None:
        """Nothing runs on, and whoever waits for an answer is gone."""
        self.is_off.set()
        for job in self._jobs:
            # Of one that ended the number may be somebody else's by now.
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
        self._jobs.clear()
        # It may wait for a question, or for somebody who is gone to take an answer.
        while self._thread.is_alive():
            taker = os.open(self.root / "run/answer", os.O_RDONLY | os.O_NONBLOCK)
            try:
                asker = os.open(self.root / "run/ask", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                pass
            else:
                os.write(asker, b"\n")
                os.close(asker)
            self._thread.join(0.01)
            os.close(taker)

    def reboot(self) -> None:
        """Power fails and comes back: memory is empty, and init's first services start."""
        self._power_off()
        for name in IN_MEMORY:
            shutil.rmtree(self.root / name)
            (self.root / name).mkdir()
        for fifo in ("ask", "answer"):
            os.mkfifo(self.root / "run" / fifo)
        self._write("dev/null", "")
        self.flash_kib(self.free_kib)
        self.uci.files.clear()
        self.uci.uncommitted.clear()
        self.services.clear()
        self.cut_after, self.steps, self.fault = None, 0, None
        self._powered_on()
        for link in sorted((self.root / "etc/rc.d").iterdir()):
            self.run("/bin/sh", "-c", f"[ ! -x /etc/rc.d/{link.name} ] || /etc/init.d/{link.name[3:]} boot")

    def spawn(self, *command: str, **how: object) -> subprocess.Popen:
        inside = ["chroot", str(self.root), *command]
        with self.forking:
            job = subprocess.Popen(inside, env={"PATH": "/bin:/sbin:/usr/bin"}, start_new_session=True, **how)
        self._jobs.append(job)
        return job

    def run(self, *command: str) -> list[str]:
        """Runs a command to its end; calls are answered already."""
        with tempfile.TemporaryFile("w+") as said:
            job = self.spawn(*command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
            ends = time.monotonic() + LIMIT_S
            while job.poll() is None:
                if self.is_off.is_set():
                    raise PowerCut
                if time.monotonic() > ends:
                    raise Wrong(f"{command} takes too long")
                time.sleep(0.005)
            said.seek(0)
            self.output, self.code = said.read(), job.returncode
        if self.fault:
            raise self.fault
        return self.calls

    def _do(self, name: str, arguments: list[str]) -> tuple[int, str]:
        self.steps += 1
        if self.cut_after is not None and self.steps > self.cut_after:
            self.is_off.set()
            # Who asked waits until it is ended, by whoever sees this.
            raise PowerCut
        match name, arguments:
            case "procd_open_instance", _:
                self._command = []
            case "procd_set_param", ["command", *command]:
                self._command = command
            case "procd_close_instance", _ if self._command[0] == "/bin/sh":
                self.spawn(*self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            case "procd_close_instance", _:
                self.services.add("altnet")
            case "procd_kill", [service, *_]:
                self.services.discard(service)
            case "rc", ["running", service]:
                return int(service not in self.services), ""
            case "unpack", [file, into]:
                return 0, self._unpack(readers.apk((self.root / file.lstrip("/")).read_bytes()), into)
            case "nslookup", _:
                return int(not self.resolves), ""
        return super()._do(name, arguments)

    def _unpack(self, found: readers.Apk, into: str) -> str:
        """What is in a package goes to a folder; the names of its files. Into `scripts`: its scripts; its version."""
        if into == "scripts":
            for name, text in found.scripts.items():
                self._write(f"tmp/apk/{name}", text)
            return found.package["info"]["version"].decode() + "\n"
        names = []
        for name, entry in found.data.items():
            path = self.root / into.lstrip("/") / name
            if entry.kind == "dir":
                continue
            names.append(name.removeprefix("./"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if entry.kind == "link":
                path.symlink_to(entry.target)
            else:
                path.write_bytes(entry.data)
                path.chmod(entry.mode)
        return "".join(f"{name}\n" for name in names)

    def flash_kib(self, free: int) -> None:
        """How much of flash is free; of memory there is enough."""
        self.free_kib = free
        self._write("dev/flash_kib", str(free))

    def put(self, name: str, data: bytes) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def script(self, *words: str) -> str:
        """Calls the installer; what it says."""
        self.run("/bin/sh", f"{FOLDER}/install.sh", *words)
        return self.output

    def must(self, *words: str) -> str:
        said = self.script(*words)
        check(self.code == 0, f"install.sh {words[0]}: {said}")
        return said

    def until(self, *outcomes: str) -> str:
        ends = time.monotonic() + LIMIT_S
        while not (said := self.must("outcome").strip()).startswith(outcomes):
            check(time.monotonic() < ends, f"it stays {said}")
            if self.is_off.is_set():
                raise PowerCut
            time.sleep(0.05)
        return said

    def on_flash(self) -> dict[str, bytes | str]:
        """Each file that a boot finds again, with what is in it or where it leads."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name.split("/")[0] in IN_MEMORY:
                continue
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_file():
                found[name] = path.read_bytes()
        return found
