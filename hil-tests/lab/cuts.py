"""A machine's writes to its disk, as the emulator recorded them, and the disk as a power cut at any of them would have left it.

What was written before the last flush is there. What came after it is there, in part or not, in any order; and a write
that the cut came into is there up to some sector. The record is QEMU's `blklogwrites`, whose format is that of Linux's
`drivers/md/dm-log-writes.c`: it has a write once it is done, so one that is done while a flush is under way counts as flushed.
"""

import pathlib
import random
import struct
from dataclasses import dataclass, field

MAGIC, VERSION = 0x6A736677736872, 1
SUPERBLOCK, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
MOST_BYTES = 64 << 20  # of one write


class NoRecord(Exception):
    """A file that holds no record, or a damaged one."""


@dataclass(frozen=True)
class Write:
    """Bytes of the disk that became others, or a promise about all that went before."""

    at: int  # the first byte of the disk
    length: int  # in bytes; 0 for a flush alone
    place: int  # where in the record the bytes are; 0 for a discard, which leaves nothing to rely on
    flushes: bool

    def touches(self, first: int, length: int) -> bool:
        """Whether it wrote any of these bytes of the disk."""
        return self.length > 0 and self.at < first + length and first < self.at + self.length


def read(record: pathlib.Path) -> list[Write]:
    """All writes of a record, in their order."""
    size = record.stat().st_size
    with open(record, "rb") as file:
        head = file.read(SUPERBLOCK.size)
        if len(head) < SUPERBLOCK.size:
            raise NoRecord(f"{record} ends in its first sector: nothing was flushed")
        magic, version, count, sector = SUPERBLOCK.unpack(head)
        if (magic, version, sector) != (MAGIC, VERSION, SECTOR):
            raise NoRecord(f"{record} has magic {magic:#x}, version {version} and sectors of {sector} bytes; {MAGIC:#x}, {VERSION} and {SECTOR} are read")
        writes, place = [], SECTOR
        for number in range(count):
            file.seek(place)
            head = file.read(ENTRY.size)
            if len(head) < ENTRY.size:
                raise NoRecord(f"{record} ends before entry {number} of {count}")
            first, sectors, flags, data = ENTRY.unpack(head)
            length = sectors * SECTOR
            if flags & ~(FLUSH | FUA | DISCARD | MARK) or data or length > MOST_BYTES and not flags & DISCARD:
                raise NoRecord(f"entry {number} of {record} has flags {flags:#x}, {data} bytes of text and {sectors} sectors")
            place += SECTOR
            has_bytes = length > 0 and not flags & DISCARD
            if has_bytes and place + length > size:
                raise NoRecord(f"{record} ends in entry {number} of {count}")
            writes.append(Write(first * SECTOR, length, place if has_bytes else 0, bool(flags & FLUSH)))
            place += length if has_bytes else 0
        return writes


@dataclass
class Cut:
    """A moment at which the power goes."""

    after: int  # so many entries of the record were issued
    kind: str  # whole: all of them are there; torn: the last one in part; lost: those since the last flush by chance
    why: str = ""  # what happens there, for people
    sectors: int = 0  # how many sectors of the last one are there; by chance if not said

    def __str__(self) -> str:
        part = f", {self.sectors} sectors of the last write," if self.sectors else ""
        return f"{self.kind}{part} after {self.after}{' (' + self.why + ')' if self.why else ''}"


@dataclass
class Rewound:
    """A disk that goes through its record. `cut` shows it as it is after a power cut; the next one begins where that left off."""

    disk: pathlib.Path  # as it was when the record began; it is written to
    record: pathlib.Path
    writes: list[Write]
    seed: int = 1
    applied: int = 0
    changed: set[int] = field(default_factory=set)  # mebibytes that are others than they were at the last `changes`
    _undo: list[tuple[int, bytes]] = field(default_factory=list)

    def cut(self, cut: Cut) -> None:
        """Makes the disk what a power cut leaves. Cuts come in rising order of the entries before the last flush."""
        with open(self.disk, "r+b") as disk, open(self.record, "rb") as record:
            for at, before in reversed(self._undo):
                self._put(disk, at, before)
            self._undo.clear()
            flushed = flushed_before(self.writes, cut.after)
            if flushed < self.applied:
                raise ValueError(f"the disk is after {self.applied} entries already, and {flushed} are asked for")
            for write in self.writes[self.applied : flushed]:
                self._apply(disk, write, bytes_of(record, write))
            self.applied = flushed
            chance = random.Random(f"{self.seed} {cut.after} {cut.kind}")
            tail = self.writes[flushed : cut.after]
            for number, write in enumerate(tail):
                data, is_last = bytes_of(record, write), number + 1 == len(tail)
                if cut.kind == "lost" and not is_last and chance.random() < 0.5:
                    continue
                if cut.kind != "whole" and is_last:
                    data = data[: cut.sectors * SECTOR] if cut.sectors else torn(data, chance)
                disk.seek(write.at)
                self._undo.append((write.at, disk.read(len(data))))
                self._apply(disk, write, data)

    def changes(self) -> set[int]:
        """The mebibytes that may be others than when this was asked last."""
        changed, self.changed = self.changed, set()
        return changed

    def _apply(self, disk, write: Write, data: bytes) -> None:
        if data:
            self._put(disk, write.at, data)

    def _put(self, disk, at: int, data: bytes) -> None:
        disk.seek(at)
        disk.write(data)
        self.changed |= set(range(at >> 20, (at + len(data) - 1 >> 20) + 1))


def bytes_of(record, write: Write) -> bytes:
    """What was written, from the open record; nothing for a flush, and for a discard, whose bytes may stay as they are."""
    if not write.place:
        return b""
    record.seek(write.place)
    return record.read(write.length)


def torn(data: bytes, chance: random.Random) -> bytes:
    """The beginning of a write: whole sectors of it, or half of its only one."""
    if len(data) <= SECTOR:
        return data[: len(data) // 2]
    return data[: SECTOR * chance.randrange(1, len(data) // SECTOR)]


def flushed_before(writes: list[Write], after: int) -> int:
    """How many of the first `after` entries a flush among them covers."""
    return next((number + 1 for number in reversed(range(after)) if writes[number].flushes), 0)
