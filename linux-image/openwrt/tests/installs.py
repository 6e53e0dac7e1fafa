"""The installer, `remote/install.sh`, on a pretend device: by itself, with the power cut at each of its steps, and by
`altnet-provision` over somebody else's SSH server."""

import hashlib
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager

# First: it finds the modules beside this folder.
from layout import EPOCH, apk, ipk, package
from device import HERE
from live import FOLDER, LIMIT_S, PROLOGUE, Live, PowerCut
from readers import Wrong, check

PROVISION = pathlib.Path("altnet-provision")  # the program; whoever runs the checks says where it is
DROPBEAR = pathlib.Path("/")  # where it is unpacked
INSTALLER = HERE.parent / "remote/install.sh"
# The program that a test's package has: the real one, called outside of the device.
PROGRAM = """#!/bin/sh
# altnet {version}
case "$0" in
*altnet) exec /usr/lib/stub/altnet "$@" ;;
esac
"""
BROKEN = "#!/bin/sh\nexit 132\n"


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
