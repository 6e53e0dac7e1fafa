"""Computers of a lab: a network and mount namespace each, held open by one sleeping process.

A place has its own interfaces and its own /etc, /run, /var/lib and home directory, so that three
gateways on this machine each believe to be alone on theirs. Files written there vanish with it.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

PREFIX = "altnet-lab-"
MARK = "ALTNET_LAB"  # in the environment of all that a lab starts: the lab's folder
PR_SET_PDEATHSIG = 1
# Whether this is a guest (`lab.guest`), and how many times longer than on a machine of its own things may take: in an emulated one.
IN_GUEST = "ALTNET_IN_GUEST" in os.environ
PATIENCE = float(os.environ.get("ALTNET_LAB_PATIENCE", "1"))

# Run once in the new namespaces; `read` then tells the lab that the place stands.
SETUP = """
set -eu
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
for kept in etc var/lib; do
    mkdir -p /run/.place/$kept/upper /run/.place/$kept/work
    mount -t overlay -o lowerdir=/$kept,upperdir=/run/.place/$kept/upper,workdir=/run/.place/$kept/work overlay /$kept
done
mkdir -p /run/home
rm -f /etc/resolv.conf
: >/etc/resolv.conf
ip link set lo up
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
    net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
echo stands
exec sleep infinity
"""


class LabError(Exception):
    """Something in the lab did not happen; the message says what and shows what was said."""


def wait_for(what: str, claim, timeout_s: float = 20, every_s: float = 0.05):
    """Returns the first truthy value of `claim()`, or raises naming `what` was waited for."""
    timeout_s *= PATIENCE
    deadline = time.monotonic() + timeout_s
    while True:
        value = claim()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(every_s * PATIENCE)  # where all is slow, asking is too


class CannotRunHere(Exception):
    """This machine lacks something a scenario needs; the message says what."""


class Place:
    """One computer. Made by `Lab.place`."""

    def __init__(self, lab: "Lab", name: str):
        self.lab, self.name = lab, name
        self.programs: set[str] = set()  # what the lab ran here
        self.folder = lab.dir / name  # where commands are typed
        self.folder.mkdir()
        self._holder = lab._spawn(
            ["unshare", "--net", "--mount", "--propagation", "private", "bash", "-c", SETUP],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        if self._holder.stdout.readline() != b"stands\n":
            raise LabError(f"{name} cannot be made: {self._holder.stderr.read().decode().strip()}")
        self.pid = self._holder.pid
        self._netns = os.stat(f"/proc/{self.pid}/ns/net").st_ino

    def enter(self) -> list[str]:
        """The words that go before a command to run it here."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", f"--wdns={self.folder}", "--"]

    def environment(self) -> dict[str, str]:
        """What a shell here would see: the machine's, with a home of its own."""
        return {**os.environ, **self.lab.environment, MARK: str(self.lab.dir), "HOME": "/run/home"}

    def run(self, *command: str, check: bool = True, timeout_s: float = 60, stdin: str | None = None,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """Runs a command to its end and returns it with its output as text."""
        self.programs.add(command[0])
        done = subprocess.run(
            [*self.enter(), *command], env={**self.environment(), **(env or {})}, timeout=timeout_s * PATIENCE,
            input=stdin if stdin is not None else "", capture_output=True, text=True,
        )
        if check and done.returncode:
            raise LabError(f"{self.name}: {' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
        return done

    def start(self, *command: str, log: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        """Starts a command that stays, writing to `log` in the lab's folder."""
        self.programs.add(command[0])
        with open(self.lab.dir / log, "ab") as out:
            return self.lab._spawn([*self.enter(), *command], stdout=out, stderr=subprocess.STDOUT,
                                   env={**self.environment(), **(env or {})})

    def path(self, path: str) -> pathlib.Path:
        """Where a file of this place can be read from outside."""
        return pathlib.Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def ip(self, *words: str) -> str:
        """Runs `ip` here."""
        return self._tool("ip", *words)

    def sysctl(self, *settings: str) -> None:
        """Sets kernel parameters of this place."""
        self._tool("sysctl", "-qw", *settings)

    def _tool(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run([*self.enter(), *command], input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"{self.name}: {' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def processes(self) -> dict[int, str]:
        """The command lines of what runs here now, without the holder."""
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return {pid: line for pid in pids if pid != self.pid and (line := self.command_of(pid)) is not None}

    def command_of(self, pid: int) -> str | None:
        """The command line of a process, if it runs here and still does."""
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino != self._netns:
                return None
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        return b" ".join(words).decode(errors="replace").strip()


class Lab:
    """Owns places and processes, and ends them. Use as a context manager."""

    def __init__(self, keep: bool = False):
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces: run it as root")
        sweep()
        self.keep = keep
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.environment: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> "Lab":
        for name in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, lambda number, _: exit(128 + number))
        return self

    def __exit__(self, fault, *_) -> None:
        if fault and IN_GUEST:
            self._show_logs()
        if self.keep:
            (self.dir / "kept").touch()
        else:
            self.close()

    def place(self, name: str) -> Place:
        """Makes a computer with no cable in it yet."""
        self.places[name] = Place(self, name)
        return self.places[name]

    def _show_logs(self) -> None:
        """Prints the end of every log: nobody can look into an emulated machine that is gone."""
        for log in sorted(self.dir.glob("*.log")):
            print(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}", flush=True)

    def close(self) -> None:
        """Ends all that runs in the lab's places, and only that."""
        take_down(self.dir)
        for started in self._started:
            started.wait()

    def _spawn(self, command: list[str], env: dict[str, str] | None = None, **options) -> subprocess.Popen:
        libc = ctypes.CDLL(None, use_errno=True)
        parent = os.getpid()

        def die_with_the_lab() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        started = subprocess.Popen(command, start_new_session=True,
                                   env={**(env or os.environ), MARK: str(self.dir)},
                                   preexec_fn=None if self.keep else die_with_the_lab, **{"stdin": subprocess.DEVNULL, **options})
        self._started.append(started)
        return started


def end(pids: list[int], patience_s: float = 2) -> None:
    """Asks processes to end, waits, and insists."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + patience_s
        while (pids := [pid for pid in pids if _is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kept_labs() -> list[pathlib.Path]:
    """The folders of labs that were left up."""
    return sorted(mark.parent for mark in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*/kept"))


def take_down(folder: pathlib.Path) -> None:
    """Ends all that a lab started, known by the mark it carries, and removes the lab's folder."""
    mark = f"{MARK}={folder}".encode()
    marked = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in pathlib.Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                marked.append(int(entry))
        except OSError:
            continue  # it ended while we looked
    end(marked)
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Takes down labs whose own process was killed: a child of a child may have outlived it."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if not (folder / "kept").exists() and not pathlib.Path(f"/proc/{owner}").exists():
            take_down(folder)
