"""A guest with Debian's kernel in which scenarios run whose modules this machine's kernel may lack.

The guest is emulated, without KVM. It sees this machine's files read-only, with packages laid over them that are unpacked
and not installed here (`ci/install line`), and whatever it writes is in its memory. The lab is the same in it as outside: it makes
its namespaces there. What scenarios say comes back by the serial console. See ADR 0030.
"""

import contextlib
import functools
import gzip
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from .altnet import BINARIES, PYTHON, ROOT, TARGET, build_binaries
from .places import CannotRunHere, LabError

TOOLS = TARGET / "ci-tools"
HERE = ROOT / "hil-tests/guest"
# Of the initial RAM disk; all others the guest's own modprobe finds.
MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
MEMORY_MB = 1024
# How much longer things may take in it, by its own clock, than in namespaces of this machine.
PATIENCE = 4
# By this machine's clock, however busy it is.
BOOT_S, SCENARIO_S = 900, 3600
# Its clock counts instructions, a nanosecond each, and goes by this machine's only while there is nothing to do: so little in it runs into a
# deadline because this machine is busy.
BY_INSTRUCTIONS = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on", "-smp", "1"]


def run(names: list[str]) -> dict[str, str]:
    """Runs scenarios in one guest; what each said of itself at the end, `held`, `FAILED: ...` or `cannot run here: ...`."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="altnet-guest-") as folder:
        ramdisk = pathlib.Path(folder) / "initrd.gz"
        make_ramdisk(ramdisk)
        return Guest(ramdisk, names).run()


@functools.cache
def prepare() -> None:
    """Builds the router, and fetches the kernel and others' programs."""
    if os.uname().machine != "x86_64":
        raise CannotRunHere("the guest is for x86-64 only")
    build_binaries()
    if subprocess.run([ROOT / "ci/install", "guest", "line"]).returncode:
        raise CannotRunHere("the guest's kernel and programs could not be had")


def kernel() -> tuple[pathlib.Path, str]:
    """The tree of the unpacked kernel, and its version."""
    tree = TOOLS / "kernel"
    return tree, next((tree / "lib/modules").iterdir()).name


def make_ramdisk(path: pathlib.Path) -> None:
    """Writes the initial RAM disk: busybox, the modules by which the guest finds the rest, and its first process."""
    tree, version = kernel()
    if not (tree / f"lib/modules/{version}/modules.dep.bin").exists():
        tool("depmod", "-b", str(tree), version)
    with tempfile.TemporaryDirectory(prefix="altnet-guest-") as folder:
        root = pathlib.Path(folder)
        for directory in ("bin", "modules"):
            (root / directory).mkdir()
        shutil.copy("/bin/busybox", root / "bin/busybox")
        shutil.copy(HERE / "init", root / "init")
        order = []
        for module in MODULES:
            for line in tool("modprobe", "-d", str(tree), "-S", version, "--show-depends", module).splitlines():
                file = pathlib.Path(line.split()[1]) if line.startswith("insmod") else None
                if file and file.name not in order:
                    shutil.copy(file, root / "modules")
                    order.append(file.name)
        (root / "modules/order").write_text("".join(f"{name}\n" for name in order))
        files = "\0".join(str(file.relative_to(root)) for file in sorted(root.rglob("*")))
        packed = subprocess.run(["cpio", "-0", "-o", "-H", "newc", "--quiet"], cwd=root, input=files.encode(), stdout=subprocess.PIPE, check=True)
        path.write_bytes(gzip.compress(packed.stdout, 1))


def shared(tag: str, path) -> list[str]:
    """A folder of this machine that the guest may read."""
    return ["-fsdev", f"local,id={tag},path={path},security_model=none,readonly=on,multidevs=remap", "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def tool(*command: str) -> str:
    """What one of Debian's tools says, from where Debian has them."""
    return subprocess.run(command, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}, check=True, stdout=subprocess.PIPE, text=True).stdout


class Guest:
    """A guest that runs scenarios and ends."""

    def __init__(self, ramdisk: pathlib.Path, names: list[str]):
        tree, version = kernel()
        told = {
            "root": ROOT, "kernel": tree, "target": TARGET, "build": BINARIES.name, "patience": PATIENCE, "python": PYTHON,
            "run": ",".join(names),
        }
        words = " ".join(f"altnet.{key}={value}" for key, value in told.items())
        self.names = names
        self._said: queue.Queue[str | None] = queue.Queue()
        self._command = [
            "qemu-system-x86_64", *BY_INSTRUCTIONS, "-cpu", "max", "-m", str(MEMORY_MB), "-nodefaults", "-no-reboot",
            "-display", "none", "-monitor", "none", "-serial", "stdio", "-device", "virtio-rng-pci",
            *shared("host", "/"), *shared("tools", TOOLS / "line"),
            "-kernel", str(tree / f"boot/vmlinuz-{version}"), "-initrd", str(ramdisk),
            "-append", f"console=ttyS0 quiet loglevel=3 panic=1 no_timer_check nowatchdog mitigations=off {words}",
        ]

    def run(self) -> dict[str, str]:
        """Runs it to its end and prints what it says meanwhile; what each scenario said of itself."""
        emulator = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            threading.Thread(target=self._listen, args=(emulator.stdout,), daemon=True).start()
            self._until(r"guest: began", BOOT_S)
            found = {}
            for name in self.names:
                match = self._until(rf"{name} (held|FAILED.*|cannot run here.*) \([\d.]+ s\)", SCENARIO_S)
                found[name] = match[1]
            self._until(r"guest: ended \d+", BOOT_S)
            return found
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(emulator.pid, signal.SIGKILL)
            emulator.wait()

    def _listen(self, console) -> None:
        for raw in console:
            self._said.put(raw.decode(errors="replace").rstrip())
        self._said.put(None)

    def _until(self, pattern: str, within_s: float) -> re.Match:
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._said.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise LabError(f"the guest did not say `{pattern}` within {within_s} s") from None
            if line is None:
                raise LabError(f"the guest ended before it said `{pattern}`; its console says why")
            print(line, flush=True)
            if match := re.fullmatch(pattern, line):
                return match
