"""A guest's time, which is set for a scenario and put right afterwards, and a server of the time that doesn't go by it. Only in a guest (`lab.guest`).

All places share one clock, so the server's is another one: chronyd that leaves the clock alone (`-x`) and follows a receiver of the time, which
counts from a moment of its own.
"""

import os
import subprocess
import time

from .altnet import PYTHON
from .places import IN_GUEST, CannotRunHere, wait_for
from .providers import Provider

# A receiver, as chronyd hears it (refclock SOCK of chrony.conf(5), struct sock_sample): when, how much the time differs then, pulse, leap, padding, magic.
RECEIVER = """
import socket, struct, sys, time
began, heard = float(sys.argv[1]), sys.argv[2]
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    time.sleep(0.1)
    now = time.time_ns() // 1000
    is_right = began + time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    sample = struct.pack("@qqdiiii", now // 10**6, now % 10**6, is_right - now / 10**6, 0, 0, 0, 0x534F434B)
    try:
        to.sendto(sample, heard)
    except OSError:
        pass  # chronyd doesn't listen
"""
CONF = """
refclock SOCK /run/receiver.sock poll 0 refid GPS
allow
cmdport 0
bindcmdaddress /run/chrony/chronyd.sock
pidfile /run/chronyd.pid
"""


def running_s() -> float:
    """Seconds that nobody sets and nobody slows."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


class Clock:
    """This guest's clock. Use as a context manager; leaving it puts it right."""

    def __enter__(self) -> "Clock":
        if not IN_GUEST:
            raise CannotRunHere("this machine's time isn't a lab's to set")
        self._right = time.time() - running_s()
        return self

    def __exit__(self, *_) -> None:
        time.clock_settime(time.CLOCK_REALTIME, self._right + running_s())
        # A daemon that was killed leaves the rate as it was then.
        subprocess.run(["busybox", "adjtimex", "-q", "-f", "0", "-t", str(10**6 // os.sysconf("SC_CLK_TCK"))], check=True)

    def begin_in_1970(self) -> None:
        """Sets it to where it would be without a battery. A kernel takes no time that is before it booted."""
        time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + 1)


class TimeServer:
    """chronyd at a provider, whose time is its own."""

    def __init__(self, provider: Provider, unix_s: float):
        self.place, self.name = provider.place, provider.name
        self._began = unix_s - running_s()
        (self.place.folder / "chrony.conf").write_text(CONF)
        self.place.run("mkdir", "-m", "750", "/run/chrony")
        self.place.start("chronyd", "-x", "-d", "-u", "root", "-f", str(self.place.folder / "chrony.conf"), log=f"{self.name}-chronyd.log")
        self.place.start(PYTHON, "-c", RECEIVER, repr(self._began), "/run/receiver.sock", log=f"{self.name}-receiver.log")

    def now(self) -> float:
        """Its time."""
        return self._began + running_s()

    def serves(self) -> None:
        """Waits until it has its time."""
        said = lambda: self.place.run("chronyc", "-c", "tracking", check=False).stdout.split(",")
        wait_for("the provider's chronyd to have the time", lambda: said()[2:3] == ["1"], timeout_s=60)
