"""A box whose disk the kernel has as devices, and of which every write is recorded (see `cuts`), without a machine around it.

QEMU's storage daemon records, and shows the disk as a file; loop devices make the disk and its partitions of that.
"""

import os
import pathlib
import subprocess

from . import boxes
from .altnet import ROOT
from .boxes import disk
from .places import CannotRunHere, LabError, Place, wait_for
from .providers import House
from .remains import PLACES


BOX = "/run/box"  # in its place, wherever the lab lies
WORDS = ("--state-directory", f"{BOX}/data/altnet-router")  # of the router on it


class Card(boxes.Box):
    """A box in a place of a lab, with a disk of its own there. Use as a context manager, within the lab's."""

    def __init__(self, root: pathlib.Path, place: Place, whole: pathlib.Path, record: pathlib.Path):
        super().__init__(root)
        self.place, self.whole, self.record = place, whole, record
        self._shown = root / "disk"
        self._loops: dict[str, str] = {}
        self._daemon: subprocess.Popen | None = None

    def __enter__(self) -> "Card":
        self._shown.touch()
        self.record.touch()
        self._daemon = self.place.lab._spawn([
            "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=content,filename={self.whole}", "--blockdev", f"driver=file,node-name=record,filename={self.record}",
            "--blockdev", "driver=blklogwrites,node-name=disk,file=content,log=record", "--export", f"type=fuse,id=shown,node-name=disk,mountpoint={self._shown},writable=on",
        ])

        def is_shown() -> bool:
            if self._daemon.poll() is not None:
                raise LabError(f"the storage daemon ended at once with {self._daemon.returncode}")
            return self._shown.stat().st_size == disk.total_bytes()

        wait_for("the disk to be shown", is_shown)
        for name, (at, length) in {"disk": (0, disk.total_bytes()), **{name: PLACES[name] for name in ("slot-a", "slot-b", "data")}}.items():
            made = subprocess.run(["losetup", "--find", "--show", "--offset", str(at), "--sizelimit", str(length), self._shown], capture_output=True, text=True)
            if made.returncode:
                raise LabError(f"no loop device for {name}: {made.stderr.strip()}")
            self._loops[name] = made.stdout.strip()
            device = self.root / "dev/altnet" / name
            device.unlink(missing_ok=True)
            device.symlink_to(self._loops[name])
        self.place.run("ln", "-s", str(self.root), BOX)
        return self

    def __exit__(self, *_) -> None:
        self.place.run("umount", str(self.root / "data"), check=False)
        for device in self._loops.values():
            subprocess.run(["losetup", "--detach", device], check=False)
        # It takes what it shows away with it.
        self._daemon.terminate()
        self._daemon.wait()

    def boot(self) -> str:
        """Boots, after whatever ran went down in good order; returns the slot."""
        self.place.run("umount", str(self.root / "data"), check=False)
        which = super().boot()
        mended = self.place.run("sh", str(ROOT / "linux-image/root/usr/sbin/altnet-mend"), self._loops["data"], check=False)
        if mended.returncode >= 4:
            raise LabError(f"the data can't be mended: {mended.stdout}{mended.stderr}")
        self.place.run("mount", "-o", "noatime,errors=remount-ro", self._loops["data"], str(self.root / "data"))
        self.place.run("mkdir", "-p", "-m", "700", *(str(self.root / "data" / name) for name in ("etc", "altnet", "altnet-router")))
        return which


def on_card(house: House, whole: pathlib.Path, record: pathlib.Path) -> Card:
    """Gives a house's router a disk, which has its file `altnet.toml` already."""
    house.config = pathlib.Path(f"{BOX}/data/etc/altnet.toml")
    return Card(house.router.folder / "box", house.router, whole, record)


def need() -> None:
    """Sees to what a card is made of."""
    if subprocess.run([ROOT / "ci/install", "cards"]).returncode:
        raise CannotRunHere("QEMU's storage daemon could not be had")
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            raise CannotRunHere(f"this kernel has no {device}")


def laid_out(into: pathlib.Path, slot: bytes, config: pathlib.Path, folder: pathlib.Path) -> None:
    """A disk as images have it, with these bytes at the beginning of both slots, a file `altnet.toml` on its data, and nothing to boot by."""
    parts = {}
    for name, (_, length) in PLACES.items():
        parts[name] = folder / f"part-{name}"
        parts[name].write_bytes(slot if name.startswith("slot") else b"")
        os.truncate(parts[name], length)
    disk.ext4(parts["data"], disk.DATA_SIZE, "card", 0)
    for words in ("mkdir etc", f"write {config} etc/altnet.toml"):
        subprocess.run(["/sbin/debugfs", "-w", "-R", words, parts["data"]], check=True, capture_output=True)
    disk.assemble(into, "card", "mbr", "u-boot", parts, {})
    for part in parts.values():
        part.unlink()
