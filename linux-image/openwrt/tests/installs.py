"""The installer, `remote/install.sh`, on a pretend device: by itself, with the power cut at each of its steps, and by
`altnet-provision` over somebody else's SSH server."""

import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager

# First: it finds the modules beside this folder.
from layout import EPOCH, apk, ipk, package, readers
from device import HERE, STUB, Device
from readers import Wrong, check

PROVISION = pathlib.Path("altnet-provision")  # the program; whoever runs the checks says where it is
DROPBEAR = pathlib.Path("/")  # where it is unpacked
INSTALLER = HERE.parent / "remote/install.sh"
FOLDER = "/tmp/altnet-install"
TOOLS = ("awk", "cut", "tail", "tar", "gzip", "sha256sum", "du", "sort", "ls", "mv", "cp", "chmod", "tr", "basename")
# What a boot doesn't find again.
IN_MEMORY = ("tmp", "run", "control", "dev")
# The program that a test's package has: the real one, called outside of the device.
PROGRAM = """#!/bin/sh
# altnet {version}
case "$0" in
*altnet) exec /usr/lib/stub/altnet "$@" ;;
esac
"""
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
BROKEN = "#!/bin/sh\nexit 132\n"
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
            try:
                os.killpg(job.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
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


def built(version: str, program: str | None = None, kind: str = "ipk") -> tuple[str, bytes]:
    """A package's place on the device, and its bytes."""
    text = program or PROGRAM.format(version=version)
    made = package.make("x86_64", version, EPOCH, text.encode())
    return f"{FOLDER}/altnet_{version}_x86_64.{kind}", apk.build(made, None) if kind == "apk" else ipk.build(made)


def bring(device: Live, version: str, program: str | None = None) -> str:
    """The installer and a package lie in the device's memory; the package's place."""
    place, data = built(version, program, device.kind)
    device.put(f"{FOLDER}/install.sh", PROLOGUE.encode() + INSTALLER.read_bytes())
    device.put(place, data)
    return place


def install(device: Live, version: str, seconds: int = LIMIT_S) -> None:
    place = bring(device, version)
    device.must("prepare", place, summed((device.root / place.lstrip("/")).read_bytes()))
    device.must("install", place, str(seconds))


def summed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kept(device: Live, version: str) -> None:
    install(device, version)
    device.until("waiting")
    device.must("check")
    device.must("confirm")


def check_same(device: Live, before: dict[str, bytes | str], when: str) -> None:
    now = device.on_flash()
    differs = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
    check(not differs, f"{when} these differ from before: {', '.join(differs)}")


def check_settings(device: Live, before: dict[str, bytes | str], when: str) -> None:
    now = device.on_flash()
    differs = [name for name in before if name.startswith("etc/config/") and now.get(name) != before[name]]
    check(not differs, f"{when} these settings differ: {', '.join(differs)}")


def version_of(device: Live) -> str:
    path = device.root / "usr/bin/altnet-box"
    return path.read_text().splitlines()[1].removeprefix("# altnet ") if path.exists() else ""


def what_is_confirmed_stays(altnet: pathlib.Path, _: bool) -> None:
    for kind in ("ipk", "apk"):
        stays(altnet, kind)


def stays(altnet: pathlib.Path, kind: str) -> None:
    with Live(altnet, kind) as device:
        kept(device, "0.1.0-r1")
        check("altnet" in device.services and version_of(device) == "0.1.0-r1", "it isn't there")
        leftovers = [name for name in device.on_flash() if "undo" in name]
        check(not leftovers, f"{leftovers} is left")
        once = device.on_flash()
        device.reboot()
        check_same(device, once, "after a boot")
        kept(device, "0.2.0-r1")
        check(version_of(device) == "0.2.0-r1", "the newer one isn't there")
        check(device.config("firewall") == once["etc/config/firewall"].decode(), "an upgrade changed the firewall")


def what_nobody_confirms_is_undone(altnet: pathlib.Path, _: bool) -> None:
    for kind in ("ipk", "apk"):
        is_undone(altnet, kind)


def is_undone(altnet: pathlib.Path, kind: str) -> None:
    with Live(altnet, kind) as device:
        before = device.on_flash()
        install(device, "0.1.0-r1", seconds=1)
        check("nobody confirmed" in device.until("undone"), "why it was undone")
        check_same(device, before, "without a confirmation")
        check(device.script("confirm") and device.code != 0, "what was undone is confirmed")
        kept(device, "0.1.0-r1")
        device.change("altnet", "listen_port '51820'", "listen_port '4500'")
        before = device.on_flash()
        install(device, "0.2.0-r1")
        device.until("waiting")
        check(version_of(device) == "0.2.0-r1", "the newer one isn't there")
        device.must("undo", "the person's computer saw it fail")
        check(device.until("undone") == "undone the person's computer saw it fail", "why it was undone")
        check_same(device, before, "undone")
        check("altnet" in device.services, "the older one isn't started again")


def a_router_that_was_better_before_is_told(altnet: pathlib.Path, _: bool) -> None:
    with Live(altnet) as device:
        install(device, "0.1.0-r1")
        device.until("waiting")
        device.resolves = False
        said = device.script("check")
        check(device.code != 0 and "no longer resolves names" in said, said)
        device.resolves = True
        device.services.clear()
        said = device.script("check")
        check(device.code != 0 and "altnetd does not run" in said, said)
        device.must("undo", "it failed")
        # What didn't work before is not asked for.
        device.resolves = False
        install(device, "0.1.0-r1")
        device.until("waiting")
        device.must("check")


def what_does_not_run_here_is_not_installed(altnet: pathlib.Path, _: bool) -> None:
    with Live(altnet) as device:
        place = bring(device, "0.1.0-r1", BROKEN)
        before = device.on_flash()
        data = (device.root / place.lstrip("/")).read_bytes()
        said = device.script("prepare", place, summed(data))
        check(device.code != 0 and "does not work on this router" in said, said)
        said = device.script("prepare", place, summed(data[:-1]))
        check(device.code != 0 and "did not come whole" in said, said)
        place, data = built("0.1.0-r1")
        device.put(place, data)
        check("program_kib" in device.must("prepare", place, summed(data)), "its size")
        facts = device.must("facts")
        for line in ("release 24.10.2", "manager opkg", "arch all noarch x86_64 ", "installed ", "flash_kib 8000", "flash_kind jffs2", "names yes", "pending no"):
            check(f"{line}\n" in facts, f"{line} is not in\n{facts}")
        check_same(device, before, "after it was only asked")


def wherever_the_power_fails_it_is_as_before_or_as_after(altnet: pathlib.Path, _: bool) -> None:
    # Nothing was there; an older one, which is kept on flash; an older one that is kept in memory.
    for kind, older, free in (("ipk", None, 8000), ("apk", "0.1.0-r1", 8000), ("ipk", "0.1.0-r1", 100)):
        with Live(altnet, kind) as device:
            if older:
                kept(device, older)
            device.flash_kib(free)
            before, cuts, cut = device.on_flash(), 0, 0
            while True:
                device.steps, device.cut_after = 0, cut
                try:
                    install(device, "0.2.0-r1")
                    device.until("waiting")
                    device.must("confirm")
                except PowerCut:
                    cuts += 1
                else:
                    break
                device.reboot()
                if "etc/altnet/undo/plan" in device.on_flash():
                    raise Wrong(f"after a cut at step {cut} the plan is still there")
                now = version_of(device)
                if free < 8000:
                    check_settings(device, before, f"after a cut at step {cut}")
                    check(now in ("", older, "0.2.0-r1"), f"after a cut at step {cut} there is {now}")
                    if now != older:
                        break
                    cut += 1
                    continue
                check(now in (older or "", "0.2.0-r1"), f"after a cut at step {cut} there is {now or 'nothing'}")
                if now == "0.2.0-r1":
                    # Confirmed before the power failed: what is left of it is gone, too.
                    check(not [name for name in device.on_flash() if "undo" in name], f"leftovers after a cut at step {cut}")
                    break
                # What was written before the plan is nobody's, and the next installation removes it.
                shutil.rmtree(device.root / "etc/altnet/undo", ignore_errors=True)
                (device.root / "etc/init.d/altnet-undo").unlink(missing_ok=True)
                check_same(device, before, f"after a cut at step {cut}")
                cut += 1
            check(cuts > 20 or free < 8000, f"there were {cuts} cuts")


@contextmanager
def ssh_server(device: Live, folder: pathlib.Path):
    """OpenWrt's SSH server on the device, which lets one key in; how `ssh` is called for it."""
    for tree in ("lib", "lib64", "usr/lib", "usr/sbin"):
        if (DROPBEAR / tree).exists():
            shutil.copytree(DROPBEAR / tree, device.root / tree, symlinks=True, dirs_exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "person"], check=True)
    device.put("root/.ssh/authorized_keys", (folder / "person.pub").read_bytes())
    for name, mode in (("root", 0o700), ("root/.ssh", 0o700), ("root/.ssh/authorized_keys", 0o600)):
        (device.root / name).chmod(mode)
    device.put("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    device.put("etc/shells", b"/bin/sh\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (device.root / "etc/dropbear").mkdir(exist_ok=True)
    log = folder / "dropbear.log"
    with open(log, "w") as said:
        server = device.spawn("/usr/sbin/dropbear", "-F", "-E", "-R", "-s", "-p", f"127.0.0.1:{port}", "-P", "/run/dropbear.pid", stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    ends = time.monotonic() + LIMIT_S
    while "Not backgrounding" not in log.read_text():
        check(server.poll() is None and time.monotonic() < ends, log.read_text())
        time.sleep(0.05)
    ssh = f"ssh -F none -p {port} -i {folder}/person -o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known"
    # Its keys are made when somebody comes.
    subprocess.run([*ssh.split(), "root@127.0.0.1", "true"], check=True, capture_output=True, timeout=LIMIT_S)
    yield ssh
    server.terminate()
    server.wait()


def provision(ssh: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([PROVISION, "openwrt", "install", "127.0.0.1", *words, "--ssh", ssh], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def a_person_installs_it_over_ssh(altnet: pathlib.Path, _: bool) -> None:
    with Live(altnet) as device, tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = []
        for version in ("0.1.0-r1", "0.2.0-r1"):
            place, data = built(version)
            files.append(folder / pathlib.Path(place).name)
            files[-1].write_bytes(data)
        strange = folder / "altnet_0.1.0-r1_mipsel_24kc.ipk"
        strange.write_bytes(files[0].read_bytes())
        with ssh_server(device, folder) as ssh:
            before = device.on_flash()
            done = provision(ssh, str(files[0]), "--check")
            check(done.returncode == 0 and "could be installed" in done.stdout, done.stderr + done.stdout)
            done = provision(ssh, str(files[0]))
            check(done.returncode == 1 and "nobody said yes" in done.stderr, done.stderr)
            done = provision(ssh, str(strange), "--yes")
            check(done.returncode == 1 and "none of the packages is for this router" in done.stderr, done.stderr)
            check_same(device, before, "after it was only asked")

            done = provision(ssh, str(strange), str(files[0]), "--yes")
            check(done.returncode == 0 and "altnet join" in done.stderr, done.stderr + done.stdout)
            check(version_of(device) == "0.1.0-r1", "it isn't there")
            before = device.on_flash()
            # The new one breaks the house's names: it goes, and says why.
            ends = threading.Event()

            def break_names() -> None:
                while not ends.wait(0.05):
                    device.resolves = version_of(device) != "0.2.0-r1"

            breaks = threading.Thread(target=break_names)
            breaks.start()
            done = provision(ssh, str(files[1]), "--yes", "--patience", "20s")
            ends.set()
            breaks.join()
            check(done.returncode == 1 and "no longer resolves names" in done.stderr and "as it was before" in done.stderr, done.stderr)
            check_same(device, before, "undone")
            device.resolves = True
            done = provision(ssh, str(files[1]), "--yes", "--json")
            check(done.returncode == 0 and '"outcome": "confirmed"' in done.stdout, done.stderr + done.stdout)
            check(version_of(device) == "0.2.0-r1", "the newer one isn't there")


CHECKS = [
    what_is_confirmed_stays,
    what_nobody_confirms_is_undone,
    a_router_that_was_better_before_is_told,
    what_does_not_run_here_is_not_installed,
    wherever_the_power_fails_it_is_as_before_or_as_after,
    a_person_installs_it_over_ssh,
]
