"""A box with two slots that is made of files, and releases for boxes: bundles that are put together from the format's description,
without our code."""

import base64
import pathlib
import sys
import time

from .places import LabError

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "linux-image"))
sys.path.insert(0, str(ROOT / "ci/vectors"))

import bundle as format_  # noqa: E402
import records  # noqa: E402
from image import choice, disk  # noqa: E402

SEEDS = [bytes([number]) * 32 for number in (1, 2, 3)]
SLOT_BYTES = (1 << 20) + 4096


def keys(rule: str = "") -> str:
    """A file of release keys of which two must sign; with a rule, an owner's."""
    lines = [rule or "generation 1", "threshold 2"]
    lines += [f"key {base64.b32encode(records.public(seed)).decode().lower().rstrip('=')}" for seed in SEEDS]
    return "".join(f"{line}\n" for line in lines)


def bundle(board: str, slot: bytes, version: str, counter: int, signers: list[bytes] = SEEDS[:2]) -> bytes:
    """A bundle that carries a slot."""
    now = int(time.time())
    manifest = {
        "product": "altnet", "board": board, "version": version, "counter": counter, "floor": 0, "made": now,
        "not_after": now + 1_000_000, "keys": None,
    }
    return format_.build({"slot": [{"bytes": slot.hex(), "times": 1}], "manifest": manifest, "seeds": [seed.hex() for seed in signers]})


def slot(fill: int) -> bytes:
    """A slot's bytes, with what makes a boot sector of the first ones."""
    return bytes([fill]) * 510 + b"\x55\xaa" + bytes([fill]) * (SLOT_BYTES - 512)


class Box:
    """A box's files below a folder. What its boot loader does is done here."""

    def __init__(self, root: pathlib.Path, board: str = "rpi"):
        self.root, self.board = root, board
        now = int(time.time())
        release = {"product": '"altnet"', "board": f'"{board}"', "version": '"0.1.0"', "counter": 1, "floor": 0, "built": now - 1000}
        for path, data in {
            "etc/altnet/release": "".join(f"{key} = {value}\n" for key, value in release.items()).encode(),
            "etc/altnet/release-keys": keys().encode(),
            "etc/altnet/board.toml": b'[boot]\nloader = "u-boot"\n',
            "dev/altnet/disk": bytes(12 << 20), "dev/altnet/slot-a": slot(1), "dev/altnet/slot-b": bytes(SLOT_BYTES),
            "sbin/reboot": f"#!/bin/sh\necho rebooted >{root}/rebooted\n".encode(),
        }.items():
            self.put(path, data)
        (root / "sbin/reboot").chmod(0o755)
        (root / "data/etc").mkdir(parents=True)

    def put(self, path: str, data: bytes) -> pathlib.Path:
        """Writes a file of the box's."""
        into = self.root / path
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_bytes(data)
        return into

    def copies(self) -> tuple:
        """What both copies of the choice say."""
        found = []
        with open(self.root / "dev/altnet/disk", "rb") as file:
            for at in choice.PLACES:
                file.seek(at)
                found.append(choice.decode(file.read(512), "u-boot"))
        return tuple(found)

    def choice(self) -> str:
        """The choice that counts, without its serial."""
        return str(choice.current(self.copies()))[:-1]

    def boot(self) -> str:
        """Boots; returns the slot."""
        copies = self.copies()
        which, counted = choice.boot(copies)
        with open(self.root / "dev/altnet/disk", "r+b") as file:
            file.seek(choice.PLACES[choice.written(copies)])
            file.write(choice.encode(counted, "u-boot"))
        for left in ("run/altnet/watched", "rebooted"):
            (self.root / left).unlink(missing_ok=True)
        self.put("run/altnet/slot", which.encode())
        # Where a router in a lab has its sockets.
        link = self.root / "run/altnet-router"
        if not link.is_symlink():
            link.symlink_to("/run/altnet-router")
        return which

    def was_told_to_boot(self) -> bool:
        """Whether the program that boots again was called since the last boot."""
        return (self.root / "rebooted").exists()


def slot_of(image: pathlib.Path) -> bytes:
    """The bytes of the slot that ci/image made beside an image."""
    path = image.with_suffix(".slot")
    if not path.exists():
        raise LabError(f"there is no {path}; build it with ci/image")
    return path.read_bytes()


__all__ = ["Box", "bundle", "choice", "disk", "keys", "slot", "slot_of"]
