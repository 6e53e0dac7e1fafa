"""The appliance's disk images, booted whole, and the boot loaders' choice of a slot."""

import functools
import http.server
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

from lab import boxes
from lab.machines import ROOT, Machine, need
from lab.places import LabError

sys.path.insert(0, str(ROOT / "linux-image"))

from image import boards, boot, choice, disk, root  # noqa: E402
from image.choice import Choice  # noqa: E402

# What works in a house by `altnet-routerd look`, and how `altnet update` calls it.
WORKS = {"wan": "internet", "dns": "names", "lan": "the house's side"}

CASES_AT = 2 << 20  # on the disk by which U-Boot is judged, a sector each

# Boards and the machines that are one; each loader once among the first two.
BOOTED = [("virt-arm64", "arm64-u-boot"), ("x86-64", "x86-64-bios"), ("x86-64", "x86-64-efi")]


def loaders_choose_as_the_table_says() -> None:
    """U-Boot and GRUB, each in its own machine, go through every case of linux-image/boot/cases.tsv: the slot, the copy that is written, and its bytes."""
    need()
    rows = [line.split("\t") for line in (ROOT / "linux-image/boot/cases.tsv").read_text().splitlines()[1:]]
    with scratch() as folder:
        for kind, loader, judged, wrote in (("arm64-u-boot", "u-boot", u_boot_judged, u_boot_wrote), ("x86-64-bios", "grub", grub_judged, grub_wrote)):
            whole = folder / f"{loader}.img"
            judged(rows, folder, whole)
            with Machine(kind, whole, folder / f"{loader}.log") as machine:
                machine.until("all cases", timeout_s=400)
                slots = dict(found.groups() for line in machine.lines if (found := re.search(r"case (\d+) is ([AB])", line)))
            for number, (first, second, slot, written, what) in enumerate(rows):
                told = f"{loader}: {first} and {second}"
                assert slots.get(str(number)) == slot, f"{told}: slot {slots.get(str(number))}, expected {slot}"
                found = wrote(number, int(written), whole)
                assert choice.decode(found, loader) == choice.parse(what), f"{told}: copy {written} is {choice.decode(found, loader)}, expected {what}"
                other = 1 - int(written)
                assert wrote(number, other, whole) == copy_of((first, second)[other], loader), f"{told}: the copy that counts was written"
            print(f"{loader}: {len(rows)} cases as the table says")


def copy_of(said: str, loader: str) -> bytes:
    """A copy of the table's; a bad one is torn in its middle, so that its first line is still there."""
    if said != "-":
        return choice.encode(choice.parse(said), loader)
    whole, other = (choice.encode(Choice("AB", 3, tries, 1), loader) for tries in (3, 2))
    cut = whole.index(b"tries_b=3") + 9
    return whole[:cut] + other[cut:] if loader == "grub" else whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]


def u_boot_judged(rows: list[list[str]], folder: pathlib.Path, into: pathlib.Path) -> None:
    """A disk on which U-Boot chooses again and again, with copies of its own for each case, behind each other."""
    chooser = (ROOT / "linux-image/boot/u-boot-choose.cmd").read_text()
    lines = ["setenv scratch 4f000000", "load ${devtype} ${devnum}:1 48000000 choose.scr"]
    for number in range(len(rows)):
        lines += [f"setenv choice_{copy} {place(number, copy) // disk.SECTOR:x}" for copy in (0, 1)]
        lines += ["source 48000000", f'echo "case {number} is ${{slot}}"']
    files = {"boot.scr": boot.u_boot_image("\n".join([*lines, "echo all cases"]), 0), "choose.scr": boot.u_boot_image(chooser, 0)}
    bare_disk("u-boot", files, folder, into, {})
    for number, row in enumerate(rows):
        for copy in (0, 1):
            put(into, place(number, copy), copy_of(row[copy], "u-boot"))


def u_boot_wrote(number: int, copy: int, whole: pathlib.Path) -> bytes:
    """A copy after that."""
    with open(whole, "rb") as file:
        file.seek(place(number, copy))
        return file.read(choice.SIZES["u-boot"])


def place(number: int, copy: int) -> int:
    """Where on U-Boot's disk a copy of a case lies."""
    return CASES_AT + (2 * number + copy) * disk.SECTOR


def grub_judged(rows: list[list[str]], folder: pathlib.Path, into: pathlib.Path) -> None:
    """The same for GRUB, for which the copies are files."""
    lines = ["serial --unit=0 --speed=115200", "terminal_output serial"]
    chooser = (ROOT / "linux-image/boot/grub-choose.cfg").read_text()
    files = {}
    for number, row in enumerate(rows):
        lines += [*(f'set choice_{copy}="($root)/cases/{number}.{copy}"' for copy in (0, 1)), chooser, f'echo "case {number} is $slot"']
        files |= {f"cases/{number}.{copy}": copy_of(row[copy], "grub") for copy in (0, 1)}
    files["grub/grub.cfg"] = "\n".join([*lines, "echo all cases", "sleep 60"]).encode()
    # GRUB for BIOS as it lies on the disk for PCs.
    built = image("x86-64").read_bytes()[: disk.BIOS_AT + disk.BIOS_SIZE]
    bare_disk("grub", files, folder, into, {0: built[: disk.SECTOR], disk.BIOS_AT: built[disk.BIOS_AT :]})


def grub_wrote(number: int, copy: int, whole: pathlib.Path) -> bytes:
    """A copy after that."""
    _, at, _ = disk.partitions()[0]
    return subprocess.run(["mtype", "-i", f"{whole}@@{at}", f"::cases/{number}.{copy}"], check=True, capture_output=True).stdout


def bare_disk(loader: str, files: dict[str, bytes], folder: pathlib.Path, into: pathlib.Path, raw: dict[int, bytes]) -> None:
    """A disk with these files on its first partition, and empty ones after it."""
    placed = {}
    for number, (name, data) in enumerate(files.items()):
        placed[name] = folder / f"{loader}-{number}"
        placed[name].write_bytes(data)
    parts = {}
    for name, _, length in disk.partitions():
        parts[name] = folder / f"{loader}-{name}"
        if name == "boot":
            disk.fat(parts[name], disk.BOOT_SIZE, disk.BOOT_LABEL, 32, placed, 0)
        else:
            with open(parts[name], "wb") as file:
                file.truncate(length)
    disk.assemble(into, "judge", "gpt", loader, parts, raw)


@functools.cache
def report(board: str) -> dict:
    """What ci/image says of the disk that it makes for a board."""
    done = subprocess.run([ROOT / "ci/image", board, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"ci/image {board}: {done.stderr.strip()[-600:]}")
    return json.loads(done.stdout)


def image(board: str) -> pathlib.Path:
    """The disk that ci/image makes for a board."""
    said = report(board)
    print(f"{board}: image {said['image_bytes']} bytes of {said['image_budget_bytes']}, slot {said['slot_bytes']}")
    return pathlib.Path(said["image"].removesuffix(".zst"))


@contextmanager
def scratch():
    """A folder on disk."""
    with tempfile.TemporaryDirectory(prefix="altnet-images-") as name:
        yield pathlib.Path(name)


def a_copy(of: pathlib.Path, folder: pathlib.Path, name: str) -> pathlib.Path:
    """A disk of its own, from an image."""
    into = folder / name
    subprocess.run(["cp", "--sparse=always", of, into], check=True)
    return into


def images_boot_and_say_so() -> None:
    """The images for ARM and PCs boot from their disks by U-Boot, BIOS and EFI: altnetd answers, the slot is said and looked after, the root is read-only, data is kept."""
    need()
    with scratch() as folder:
        for board, kind in BOOTED:
            whole = a_copy(image(board), folder, f"{kind}.img")
            with Machine(kind, whole, folder / f"{kind}.log") as machine:
                stages = boots(machine, "A")
                assert not any("FAILED" in line or "can't" in line for line in machine.lines), machine.lines
                print(f"{kind}: " + ", ".join(stages))
                machine.open_shell()
                assert "ro," in " ".join(machine.ask("grep ' / ' /proc/mounts")), "the root can be written"
                failed = machine.ask("touch /usr/x; touch /etc/x")
                assert sum("Read-only file system" in line for line in failed) == 2, failed
                machine.ask("echo kept >/data/etc/hostname; sync")
                version = machine.ask("grep version /etc/altnet/release; uname -r")
                memory = machine.ask("grep -E 'MemTotal|MemAvailable' /proc/meminfo")
                print(f"{kind}: {' on Linux '.join(version)}; {'; '.join(memory)}")
            # Pulling the plug is what ended it.
            with Machine(kind, whole, folder / f"{kind}.log") as machine:
                boots(machine, "A")
                machine.open_shell()
                assert machine.ask("hostname") == ["kept"], "data is gone after a power cut"
                found = copies(whole, boards.load(board).loader)
                assert choice.current(found).tries_a == choice.MOST_TRIES, found


def boots(machine: Machine, slot: str) -> list[str]:
    """Waits until a machine serves; returns the stages that it told."""
    machine.until(f"altnet: slot {slot} (order")
    machine.until(f"altnet: slot {slot} is mounted")
    machine.until("altnetd answers")
    machine.until(f"slot {slot} is looked after")
    return [line.split("altnet: ")[1] for line in machine.lines if re.search(r"altnet: .* at [\d.]+ s", line)]


def copies(whole: pathlib.Path, loader: str) -> tuple[Choice | None, Choice | None]:
    """What both copies on a disk say."""
    with open(whole, "rb") as file:
        found = []
        for at in choice.PLACES:
            file.seek(at)
            found.append(choice.decode(file.read(choice.SIZES[loader]), loader))
    return tuple(found)


def put(whole: pathlib.Path, at: int, data: bytes) -> None:
    """Writes bytes of a disk."""
    with open(whole, "r+b") as file:
        file.seek(at)
        file.write(data)


def held_by(whole: pathlib.Path, name: str) -> bytes:
    """The bytes of a partition."""
    at, length = next((at, length) for part, at, length in disk.partitions() if part == name)
    with open(whole, "rb") as file:
        file.seek(at)
        return file.read(length)


def onto_data(whole: pathlib.Path, folder: pathlib.Path, files: dict[str, str]) -> None:
    """Puts files into /data/etc of a disk that hasn't been booted."""
    data = folder / "data.ext4"
    data.write_bytes(held_by(whole, "data"))
    requests = ["mkdir etc"]
    for name, text in files.items():
        (folder / name).write_text(text)
        requests.append(f"write {folder / name} etc/{name}")
    for request in requests:
        done = subprocess.run(["/sbin/debugfs", "-w", "-R", request, data], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    put(whole, next(at for part, at, _ in disk.partitions() if part == "data"), data.read_bytes())


def a_bad_slot_is_left_for_the_other() -> None:
    """Slot B is to be tried and has no root: it fails three times, and A is back; then each copy of the choice is torn, and what is left still decides."""
    need()
    with scratch() as folder:
        for board, kind in BOOTED[:2]:
            loader = boards.load(board).loader
            whole = a_copy(image(board), folder, f"{kind}.img")
            slot_b = next(at for name, at, _ in disk.partitions() if name == "slot-b")
            with open(whole, "rb") as file:
                file.seek(slot_b)
                content = file.read(disk.SLOT_SIZE)
            # The superblock of the squashfs, at the beginning of a sector: the slot loads, and can't be mounted.
            root = next(found.start() for found in re.finditer(rb"hsqs", content) if found.start() % disk.SECTOR == 0)
            put(whole, slot_b + root, bytes(disk.SECTOR))
            put(whole, choice.PLACES[0], choice.encode(Choice("BA", 3, 3, 2), loader))
            with Machine(kind, whole, folder / f"{kind}.log") as machine:
                for left in (2, 1, 0):
                    machine.until(f"altnet: slot B (order BA, A has 3 tries left, B {left})")
                    machine.until("slot B has no root")
                boots(machine, "A")
            assert choice.current(copies(whole, loader)) == Choice("BA", 3, 0, 7), copies(whole, loader)
            print(f"{kind}: B failed three times, A is back")
            for torn in (0, 1):
                before = copies(whole, loader)
                put(whole, choice.PLACES[torn] + 40, bytes(24))
                assert copies(whole, loader)[torn] is None
                expected, _ = choice.boot(tuple(None if number == torn else said for number, said in enumerate(before)))
                with Machine(kind, whole, folder / f"{kind}.log") as machine:
                    boots(machine, expected)
                assert all(copies(whole, loader)), "a torn copy was not written anew"
                print(f"{kind}: copy {torn} was torn, slot {expected} booted, both copies are good again")


class Releases:
    """A folder of bundles on this machine, and a resolver, as a guest reaches them; use as a context manager."""

    def __init__(self, folder: pathlib.Path):
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        self._web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._resolver.bind(("127.0.0.1", 0))
        self.config = (
            f'[update]\nfrom = "http://10.0.2.2:{self._web.server_port}/"\n[dns]\nforward = ["10.0.2.2:{self._resolver.getsockname()[1]}"]\n'
            "[router]\n[router.ntp]\nservers = []\nserve = false\n"
        )

    def __enter__(self) -> "Releases":
        threading.Thread(target=self._web.serve_forever, daemon=True).start()
        threading.Thread(target=self._resolve, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._web.shutdown()
        self._resolver.close()

    def _resolve(self) -> None:
        """Answers every question with nothing."""
        while True:
            try:
                asked, client = self._resolver.recvfrom(4096)
                self._resolver.sendto(asked[:2] + bytes([0x81, 0x80]) + asked[4:], client)
            except OSError:
                return


def offer(board: str, slot: pathlib.Path, version: str, into: pathlib.Path) -> int:
    """Puts a slot into a folder as the release that it has for a board; returns the bundle's length in bytes."""
    return (into / f"{board}.bundle").write_bytes(boxes.bundle(board, slot.read_bytes(), version, int(time.time())))


def serves(machine: Machine, releases: Releases, *works: str) -> None:
    """Gives a box its file and its owner's keys, and waits until everything works there, or what is named."""
    machine.open_shell()
    for path, text in (("altnet.toml", releases.config), ("release-keys", boxes.keys("rule adds"))):
        lines = " ".join(f"'{line}'" for line in text.splitlines())
        machine.ask(f"(umask 077; printf '%s\\n' {lines} >/data/etc/{path}); sync")
    machine.ask("killall -HUP altnet-routerd; killall altnetd")
    wait_until_all_works(machine, *works)


def wait_until_all_works(machine: Machine, *works: str) -> None:
    """Waits until the internet, names and the house's side work, or what is named of `WORKS`."""
    deadline = time.monotonic() + 300
    while True:
        look = " ".join(machine.ask("altnet-routerd look"))
        if all(f'"{name}": "works"' in look for name in works or WORKS):
            return
        assert time.monotonic() < deadline, f"not everything works: {look}"
        time.sleep(2)


def installed(machine: Machine, *works: str) -> None:
    """Installs what the folder has, where everything works or what is named, and boots it."""
    said = machine.ask("altnet update check", timeout_s=120)
    assert any("newer than the release that runs" in line for line in said), said
    # At a terminal it would ask whether to boot now.
    said = machine.ask("altnet update install --no-reboot", timeout_s=900)
    told = next((line for line in said if "is in slot B, which is booted next" in line), "")
    assert told and all(WORKS[name] in told for name in works or WORKS), said
    machine.ask("reboot")


def confirmed(machine: Machine) -> float:
    """Waits until the release `next` in slot B is the good one; returns how many seconds that took."""
    machine.open_shell()
    began = time.monotonic()
    while not any("next in slot B is the good one" in line for line in machine.ask("altnet update status")):
        assert time.monotonic() < began + 300, machine.ask("altnet update status; altnet-routerd look")
        time.sleep(5)
    return time.monotonic() - began


def taken_back(machine: Machine) -> None:
    """Has a person go back to slot A, and boots it."""
    said = machine.ask("altnet update rollback --no-reboot")
    assert any("Slot A is booted next" in line for line in said), said
    machine.ask("reboot")
    boots(machine, "A")


def an_image_installs_a_release_and_confirms_it() -> None:
    """A running image fetches a release, boots it, confirms it by what works, and goes back when a person says so."""
    need()
    with scratch() as folder, Releases(folder) as releases:
        board, kind = BOOTED[0]
        whole = a_copy(image(board), folder, f"{kind}.img")
        length = offer(board, another_slot(image(board).with_suffix(".slot"), folder, "next"), "next", folder)
        with Machine(kind, whole, folder / f"{kind}.log", reaches_host=True) as machine:
            boots(machine, "A")
            serves(machine, releases)
            installed(machine)
            boots(machine, "B")
            print(f"{kind}: {length} bytes installed, booted, and confirmed after {confirmed(machine):.0f} s")
            assert choice.current(copies(whole, boards.load(board).loader)).order == "BA"
            taken_back(machine)


def a_release_without_altnetd_is_left_by_itself() -> None:
    """In a release altnetd ends at once: the house has no names there, and after ten minutes the box is back in the one before."""
    need()
    with scratch() as folder, Releases(folder) as releases:
        board, kind = BOOTED[0]
        whole = a_copy(image(board), folder, f"{kind}.img")
        offer(board, without_altnetd(image(board).with_suffix(".slot"), folder), "broken", folder)
        with Machine(kind, whole, folder / f"{kind}.log", reaches_host=True) as machine:
            boots(machine, "A")
            serves(machine, releases)
            installed(machine)
            machine.until("altnet: slot B is mounted")
            began = time.monotonic()
            machine.until("altnet: slot A is mounted", timeout_s=1500)
            print(f"{kind}: the broken release was left after {time.monotonic() - began:.0f} s")
            machine.until("slot A is looked after")
            machine.open_shell()
            said = " ".join(machine.ask("altnet update status"))
            assert "broken in slot B was left" in said, said
            assert choice.current(copies(whole, boards.load(board).loader)).tries_b == 0


def without_altnetd(slot: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The same slot with an altnetd that ends at once."""
    return another_slot(slot, folder, "broken", lambda tree: (tree / "usr/bin/altnetd").write_text("#!/bin/sh\nexit 1\n"))


def another_slot(slot: pathlib.Path, folder: pathlib.Path, version: str, change: Callable[[pathlib.Path], object] = lambda _: None) -> pathlib.Path:
    """The slot of another release: its version is another, and what `change` does to its root is done."""
    files = {name: folder / name for name in subprocess.run(["mdir", "-b", "-i", slot, "::"], check=True, capture_output=True, text=True).stdout.replace("::/", "").split()}
    for name, path in files.items():
        subprocess.run(["mcopy", "-n", "-o", "-i", slot, f"::{name}", path], check=True)
    tree = folder / "root"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", tree, files["root.sqfs"]], check=True, stdout=subprocess.DEVNULL)
    release = tree / "etc/altnet/release"
    release.write_text(re.sub(r"^version = .*$", f'version = "{version}"', release.read_text(), flags=re.M))
    change(tree)
    files["root.sqfs"].unlink()
    root.squashfs(tree, files["root.sqfs"], 0)
    into = folder / f"{version}.slot"
    disk.fat(into, disk.SLOT_SIZE, disk.SLOT_LABEL, 16, files, 0)
    shutil.rmtree(tree)
    return into


LONG = [
    loaders_choose_as_the_table_says, images_boot_and_say_so, a_bad_slot_is_left_for_the_other, an_image_installs_a_release_and_confirms_it,
    a_release_without_altnetd_is_left_by_itself,
]
SCENARIOS = []
