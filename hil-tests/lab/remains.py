"""What a power cut left of a box's disk: the slot that its loader begins, whether that is a whole release, and the data.

Judged without the box: by the rules of `linux-image/boot/README.md`, hashes, e2fsck and debugfs, and by `altnet-update` on
this machine for the state that it keeps.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass, field

from .altnet import BINARIES, ROOT
from .boxes import choice, disk, keys

BOOT_MARK = b"\x55\xaa"  # what a FAT's first sector ends with, without which no loader reads it
AREA_BYTES = 512 << 10  # of the files for the first boot, behind the data
TRIED = 7  # boots in a row that never come up: until both slots were given their tries back
PLACES = {name: (at, length) for name, at, length in disk.partitions()}


@dataclass
class Verdict:
    """What was found; `wrong` says what must not be."""

    slot: str = ""
    version: str = ""
    mended: bool = False
    wrong: list[str] = field(default_factory=list)


@dataclass
class Remains:
    """A disk, looked at again and again as it changes."""

    whole: pathlib.Path
    board: str
    loader: str
    data_bytes: int
    releases: dict[str, str]  # versions, by the SHA-256 of their slot
    folder: pathlib.Path
    _hashes: dict[str, str] = field(default_factory=dict)

    def judge(self, changed: set[int], given: dict[str, bytes], identity: bytes, is_member: bool) -> Verdict:
        """Looks at the disk, of which these mebibytes changed. `given` are files of the owner's by their names, as they have to be: on the
        data or, at the first boot, still behind them. Whoever is a member has this identity."""
        for name in ("slot-a", "slot-b"):
            at, length = PLACES[name]
            if changed & set(range(at >> 20, at + length >> 20)):
                self._hashes.pop(name, None)
        found = Verdict()
        self._choose(found)
        self._data(found, given, identity, is_member)
        return found

    def _choose(self, found: Verdict) -> None:
        """Goes by the loader's rules: the first slot has to be a whole release, and none that is ever begun may be a half one."""
        copies = self._copies()
        for number in range(TRIED):
            slot, counted = choice.boot(copies)
            version = self.releases.get(self.hash(slot))
            if not number:
                found.slot, found.version = slot, version or ""
                if not version:
                    found.wrong.append(f"slot {slot} is begun by {copies}, and is none of the releases")
            elif not version and self._read(*PLACES[f"slot-{slot.lower()}"])[510:512] == BOOT_MARK:
                found.wrong.append(f"slot {slot} is begun after {number} boots that never came up, and is half a release")
            copies = tuple(counted if number == choice.written(copies) else copy for number, copy in enumerate(copies))

    def _copies(self) -> tuple:
        return tuple(choice.decode(self._read(at, choice.SIZES[self.loader]), self.loader) for at in choice.PLACES)

    def hash(self, slot: str) -> str:
        """The SHA-256 of a slot."""
        name = f"slot-{slot.lower()}"
        if name not in self._hashes:
            at, length = PLACES[name]
            with open(self.whole, "rb") as file:
                file.seek(at)
                digest = hashlib.sha256()
                for _ in range(length >> 20):
                    digest.update(file.read(1 << 20))
            self._hashes[name] = digest.hexdigest()
        return self._hashes[name]

    def _read(self, at: int, length: int) -> bytes:
        with open(self.whole, "rb") as file:
            file.seek(at)
            return file.read(min(length, AREA_BYTES))

    def _data(self, found: Verdict, given: dict[str, bytes], identity: bytes, is_member: bool) -> None:
        """Does what the box does when it mounts its data, and reads all of it."""
        part, tree = self.folder / "data.ext4", self.folder / "tree"
        copy_part(self.whole, PLACES["data"][0], self.data_bytes, part)
        mended = tool("sh", ROOT / "linux-image/root/usr/sbin/altnet-mend", part)
        if mended.returncode >= 4:
            return found.wrong.append(f"the data can't be mended: {mended.stdout.strip()[-400:]}")
        found.mended = bool(mended.returncode)
        clean = tool("/sbin/e2fsck", "-fn", part)
        if clean.returncode:
            return found.wrong.append(f"e2fsck finds faults in data that were mended: {clean.stdout.strip()[-400:]}")
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "data").mkdir(parents=True)
        told = tool("/sbin/debugfs", "-R", f"rdump / {tree / 'data'}", part)
        if not (tree / "data/lost+found").exists():
            return found.wrong.append(f"debugfs can't read the data: {told.stderr.strip()[-400:]}")
        self._owner(found, tree / "data", given, identity, is_member)
        self._state(found, tree)

    def _owner(self, found: Verdict, data: pathlib.Path, given: dict[str, bytes], identity: bytes, is_member: bool) -> None:
        """The owner's files and the box's identity, and that no file was named before it was written."""
        area = self._read(PLACES["data"][0] + self.data_bytes, AREA_BYTES)
        waits = area.startswith(b"altnet first-boot 1") and is_whole(area)
        kept = data / "altnet/identity.slot"
        for name, content in given.items():
            file = data / "etc" / name
            if waits or (file.exists() and file.read_bytes() == content):
                continue
            # It is forgotten once the box has joined.
            if name != "first-boot.bundle" or file.exists() or not kept.exists():
                found.wrong.append(f"{name} is {'another' if file.exists() else 'gone'}, and not behind the data either")
        if is_member and (not kept.exists() or kept.read_bytes() != identity):
            found.wrong.append(f"the box's identity is {'another' if kept.exists() else 'gone'}")
        for file in (file for folder in ("etc", "altnet") for file in (data / folder).rglob("*")):
            # What is being written has another name, and locks say nothing.
            is_of_now = not file.name.startswith(".") and file.suffix not in (".new", ".taken", ".trial") and "lock" not in file.name
            if file.is_file() and is_of_now and not file.stat().st_size:
                found.wrong.append(f"{file.relative_to(data)} is empty")

    def _state(self, found: Verdict, tree: pathlib.Path) -> None:
        """What is kept of releases: it reads, and a new slot that is begun is one that waits to be confirmed, or was."""
        files = {
            "etc/altnet/release": f'product = "altnet"\nboard = "{self.board}"\nversion = "{found.version}"\ncounter = 1\nfloor = 0\nbuilt = 1\n'.encode(),
            "etc/altnet/release-keys": keys().encode(), "etc/altnet/board.toml": f'[boot]\nloader = "{self.loader}"\n'.encode(), "run/altnet/slot": found.slot.encode(),
            **{f"dev/altnet/{name}": self._read(PLACES[name][0], disk.SECTOR) for name in ("slot-a", "slot-b")},
        }
        for name, content in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        (tree / "dev/altnet/disk").symlink_to(self.whole.resolve())
        done = tool(str(BINARIES / "altnet-update"), "--root", tree, "--json", "status")
        if done.returncode:
            return found.wrong.append(f"altnet-update can't say how it is: {done.stdout.strip()[-400:]}{done.stderr.strip()[-400:]}")
        said = json.loads(done.stdout)
        if said["damage"]:
            found.wrong.append(f"what is kept of releases is damaged: {said['damage']}")
        if said["next"] != found.slot or not any(said["copies"]):
            found.wrong.append(f"altnet-update says that slot {said['next']} is next, with good copies {said['copies']}; the loader begins {found.slot}")
        waits, last = said["pending"] or {}, said["last"] or {"slot": "A", "ended": "confirmed"}
        stays = last["slot"] if last["ended"] == "confirmed" else {"A": "B", "B": "A"}[last["slot"]]
        if found.slot not in (stays, waits.get("slot")):
            found.wrong.append(f"slot {found.slot} is begun, and what is kept says of it: {waits or last}")


def is_whole(area: bytes) -> bool:
    """Whether an area of files for the first boot is what its first sector says."""
    said = dict(line.split(" ", 1) for line in area[:512].rstrip(b"\0").decode("latin-1").splitlines() if " " in line)
    length = int(said.get("bytes", "0"))
    return hashlib.sha256(area[512 : 512 + length]).hexdigest() == said.get("sha256")


def copy_part(whole: pathlib.Path, at: int, length: int, into: pathlib.Path) -> None:
    """Copies a partition, holes as holes."""
    into.unlink(missing_ok=True)
    with open(whole, "rb") as file, open(into, "wb") as part:
        part.truncate(length)
        begins = at
        while begins < at + length:
            try:
                begins = os.lseek(file.fileno(), begins, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                break
            ends = min(os.lseek(file.fileno(), begins, os.SEEK_HOLE), at + length)
            while begins < ends:
                begins += os.copy_file_range(file.fileno(), part.fileno(), ends - begins, begins, begins - at)


def tool(*command: str | pathlib.Path) -> subprocess.CompletedProcess:
    """Runs something and returns what it said."""
    environment = {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"}
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace", env=environment)
