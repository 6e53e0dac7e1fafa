"""Whole machines, emulated: a disk, the firmware that a board has, and its console.

No KVM: the kernels of machines that rent machines seldom have it.
"""

import json
import os
import pathlib
import queue
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from . import boxes
from .places import CannotRunHere, LabError

ROOT = pathlib.Path(__file__).resolve().parents[2]
UBOOT = pathlib.Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
OVMF = pathlib.Path("/usr/share/OVMF")

# By kind: the emulator's command line but for the disk.
KINDS = {
    "arm64-u-boot": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-bios", str(UBOOT)],
    "x86-64-bios": ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2"],
    "x86-64-efi": ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2"],
    "raspi3b": ["qemu-system-aarch64", "-M", "raspi3b"],
}
MEMORY_MB = {"arm64-u-boot": 256, "x86-64-bios": 256, "x86-64-efi": 512, "raspi3b": 1024}
# Of its network ports, in their order.
MACS = ("02:00:5e:00:53:01", "02:00:5e:00:53:02")
# What a Pi 3's firmware, which isn't emulated, reads from the card, begins, and hands over to that.
PI_FIRMWARE = {"-kernel": "u-boot.bin", "-dtb": "bcm2837-rpi-3-b.dtb"}


class Machine:
    """A machine that is switched on; use as a context manager. Leaving is pulling its plug.

    Its ports lead nowhere, or to `cables` (see `network.tap`), which are its own from then on; with `reaches_host` the first
    leads to the loopback addresses of this machine, as 10.0.2.2. With a keyboard, its power key can be held (`hold`). With a
    `record` every write to its disk is written there (see `cuts`).

    A Pi has one port, an adapter on USB, and its card is as large as a power of two.
    """

    def __init__(
        self, kind: str, disk: pathlib.Path, log: pathlib.Path, cables: tuple[int, ...] = (), memory_mb: int = 0, start=subprocess.Popen,
        reaches_host: bool = False, keyboard: bool = False, record: pathlib.Path | None = None,
    ):
        self.kind, self.log = kind, log
        self._said: queue.Queue[str | None] = queue.Queue()
        self.lines: list[str] = []
        self._began: list[float] = []  # when it began, by each line that tells its own time
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="altnet-machine-"))
        command = [
            *KINDS[kind], "-m", str(memory_mb or MEMORY_MB[kind]), "-nodefaults", "-display", "none", "-monitor", "none", "-rtc", "base=1970-01-01",
            "-qmp", f"unix:{self._folder / 'qmp'},server=on,wait=off", *self._board(disk, record),
        ]
        for number, mac in enumerate(MACS[:1] if kind == "raspi3b" else MACS):
            restrict = "off" if reaches_host and number == 0 else "on"
            leads = f"tap,id=n{number},fd={cables[number]}" if cables else f"user,id=n{number},restrict={restrict}"
            adapter = "usb-net" if kind == "raspi3b" else "virtio-net-pci,romfile="
            command += ["-netdev", leads, "-device", f"{adapter},netdev=n{number},mac={mac}"]
        if keyboard:
            command += ["-device", "virtio-keyboard-pci"]
        if kind == "x86-64-efi":
            shutil.copyfile(OVMF / "OVMF_VARS.fd", self._folder / "vars")
            command += [
                "-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE.fd'}", "-drive", f"if=pflash,format=raw,file={self._folder / 'vars'}",
            ]
        self.started = time.monotonic()
        self._emulator = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=cables)
        for cable in cables:
            os.close(cable)
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_) -> None:
        self._emulator.kill()
        self._emulator.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _board(self, disk: pathlib.Path, record: pathlib.Path | None) -> list[str]:
        """The emulator's words for the disk, the console and what else is soldered on."""
        if self.kind == "raspi3b":
            boot = next(at for name, at, _ in boxes.disk.partitions() if name == "boot")
            words = ["-drive", f"file={disk},format=raw,if=sd,cache=writeback", "-serial", "null", "-serial", "stdio"]
            for word, name in PI_FIRMWARE.items():
                subprocess.run(["mcopy", "-n", "-i", f"{disk}@@{boot}", f"::{name}", self._folder / name], check=True)
                words += [word, str(self._folder / name)]
            return words
        if record:
            record.touch()
            words = [
                "-blockdev", f"driver=file,node-name=content,filename={disk}", "-blockdev", f"driver=file,node-name=record,filename={record}",
                "-blockdev", "driver=blklogwrites,node-name=disk,file=content,log=record",
            ]
        else:
            words = ["-drive", f"file={disk},format=raw,if=none,id=disk,cache=writeback"]
        return [*words, "-device", "virtio-blk-pci,drive=disk,bootindex=1", "-device", "virtio-rng-pci", "-serial", "stdio"]

    def _listen(self) -> None:
        with open(self.log, "ab") as log:
            for raw in self._emulator.stdout:
                log.write(b"%8.2f " % (time.monotonic() - self.started) + raw)
                log.flush()
                line = raw.decode(errors="replace").rstrip()
                if told := re.search(r"altnet: .* at ([\d.]+) s$", line):
                    self._began.append(time.monotonic() - float(told[1]))
                self._said.put(line)
        self._said.put(None)

    def uptime_s(self, at: float) -> float:
        """How long its kernel had run at a moment of `time.monotonic()`, by what it told of its own clock."""
        # The line that came through fastest is nearest to the truth.
        return at - min(self._began)

    def until(self, *texts: str, timeout_s: float = 180) -> str:
        """The next line of the console that holds one of `texts`."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._said.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                tail = "\n".join(self.lines[-25:])
                raise LabError(f"{self.kind}: waited in vain for {' or '.join(texts)}; the console ends with\n{tail}")
            self.lines.append(line)
            if any(text in line for text in texts):
                return line

    def once(self, text: str, timeout_s: float = 180) -> str:
        """The first line of the console that holds `text`, whether it was passed over already or is still to come."""
        return next((line for line in self.lines if text in line), None) or self.until(text, timeout_s=timeout_s)

    def ask(self, command: str, timeout_s: float = 60) -> list[str]:
        """What a command says that is typed at the console's shell."""
        self._emulator.stdin.write(f"echo BE''GINS; {command}; echo EN''DS\n".encode())
        self._emulator.stdin.flush()
        self.until("BEGINS", timeout_s=timeout_s)
        since = len(self.lines)
        self.until("ENDS", timeout_s=timeout_s)
        # The kernel and the box's own scripts say what they have to say in between.
        return [line for line in self.lines[since:-1] if not re.match(r"\[ *\d+\.\d+\] |altnet: .* at [\d.]+ s$", line)]

    def hold(self, held: bool) -> None:
        """Presses the power key of its keyboard, or lets it go."""
        self._emulate("input-send-event", events=[{"type": "key", "data": {"down": held, "key": {"type": "qcode", "data": "power"}}}])

    def plug(self, port: int, is_in: bool) -> None:
        """Puts the cable of a port in, or pulls it out: the machine has a carrier there, or none."""
        self._emulate("set_link", name=f"n{port}", up=is_in)

    def _emulate(self, command: str, **arguments) -> None:
        """Says something to the emulator."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._folder / "qmp"))
            said = control.makefile("rw")
            said.readline()  # the greeting
            for words in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                said.write(json.dumps(words) + "\n")
                said.flush()
                # It also tells what happens in the machine.
                while "event" in (answer := json.loads(said.readline())):
                    pass
                if "error" in answer:
                    raise LabError(f"{self.kind}: {words['execute']}: {answer['error']}")

    def open_shell(self) -> None:
        """Presses the key that the console asks for."""
        self._emulator.stdin.write(b"\n")
        self._emulator.stdin.flush()


def need() -> None:
    """Fetches the emulators and their firmware."""
    done = subprocess.run([ROOT / "ci/install", "machines"], capture_output=True, text=True)
    if done.returncode:
        raise CannotRunHere(f"the emulators can't be installed: {done.stderr.strip().splitlines()[-1]}")
