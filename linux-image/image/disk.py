"""Disks without root: partition tables (MBR, GPT) and file systems, the same bytes each time.

The layout is the same for every board: p1 boot, p2 and p3 the slots, p4 data, at the end so that it can grow. The choice of
slot lies before them (`choice.PLACES`).
"""

import os
import pathlib
import uuid
import zlib
from dataclasses import replace

from .choice import FIRST, PLACES, Choice, encode
from .root import run

SECTOR = 512
MIB = 1 << 20
BOOT_AT, BOOT_SIZE, SLOT_SIZE, DATA_SIZE = 12 * MIB, 52 * MIB, 48 * MIB, 64 * MIB
BIOS_AT, BIOS_SIZE = 1 * MIB, 1 * MIB  # GRUB's, on PCs alone, where partitions are GPT
CHOICE_AT, CHOICE_SIZE, CHOICE_NUMBER = 3 * MIB, 9 * MIB, 6  # where GRUB finds the choice of slot as two files
SLOT_LABEL, BOOT_LABEL, DATA_LABEL = "ALTNET SLOT", "ALTNET BOOT", "altnet-data"

# Types: MBR bytes; GPT (UEFI specification table 5.7, and Linux's).
FAT, LINUX = 0x0C, 0x83
ESP, LINUX_DATA = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0fc63daf-8483-4772-8e79-3d69d8477de4"
BASIC_DATA, BIOS_BOOT = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "21686148-6449-6e6f-744e-656564454649"
LEGACY_BOOTABLE = 1 << 2
GPT_ENTRIES, GPT_ENTRY = 128, 128

SPACE = uuid.UUID("a17e7000-0000-4000-8000-000000000000")


def identity(board: str, what: str) -> uuid.UUID:
    """An id that says nothing but what it is of."""
    return uuid.uuid5(SPACE, f"{board} {what}")


def partitions() -> list[tuple[str, int, int]]:
    """Name, first byte and length, by number."""
    slots = BOOT_AT + BOOT_SIZE
    return [
        ("boot", BOOT_AT, BOOT_SIZE), ("slot-a", slots, SLOT_SIZE), ("slot-b", slots + SLOT_SIZE, SLOT_SIZE),
        ("data", slots + 2 * SLOT_SIZE, DATA_SIZE),
    ]


def total_bytes() -> int:
    """The whole image: the last partition's end and room for a second GPT."""
    _, at, length = partitions()[-1]
    return at + length + MIB


def mbr(board: str) -> bytes:
    """A master boot record with the four partitions."""
    sector = bytearray(SECTOR)
    sector[440:444] = identity(board, "disk").bytes[:4]
    for number, (name, at, length) in enumerate(partitions()):
        kind = LINUX if name == "data" else FAT
        # Cylinders and heads that nobody reads any more: the largest, which say "see the sectors".
        sector[446 + 16 * number : 462 + 16 * number] = (
            bytes([0x80 if name == "boot" else 0]) + b"\xfe\xff\xff" + bytes([kind]) + b"\xfe\xff\xff"
            + (at // SECTOR).to_bytes(4, "little") + (length // SECTOR).to_bytes(4, "little")
        )
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def gpt(board: str, bios: bool) -> dict[int, bytes]:
    """Both partition tables and the protective record, by their first byte. Source: UEFI specification section 5.3."""
    size = total_bytes()
    last = size // SECTOR - 1
    entries = bytearray(GPT_ENTRIES * GPT_ENTRY)
    rows = [(name, at, length, {"boot": ESP, "data": LINUX_DATA}.get(name, BASIC_DATA)) for name, at, length in partitions()]
    if bios:
        rows += [("bios", BIOS_AT, BIOS_SIZE, BIOS_BOOT), ("choice", CHOICE_AT, CHOICE_SIZE, BASIC_DATA)]
    for number, (name, at, length, kind) in enumerate(rows):
        entry = (
            uuid.UUID(kind).bytes_le + identity(board, name).bytes_le + (at // SECTOR).to_bytes(8, "little")
            + ((at + length) // SECTOR - 1).to_bytes(8, "little") + (LEGACY_BOOTABLE if name == "boot" else 0).to_bytes(8, "little")
            + f"altnet-{name}".encode("utf-16-le").ljust(72, b"\0")
        )
        entries[number * GPT_ENTRY : (number + 1) * GPT_ENTRY] = entry
    table_sectors = len(entries) // SECTOR

    def header(here: int, other: int, table: int) -> bytes:
        fields = (
            b"EFI PART" + bytes([0, 0, 1, 0]) + (92).to_bytes(4, "little") + bytes(8)
            + here.to_bytes(8, "little") + other.to_bytes(8, "little")
            + (2 + table_sectors).to_bytes(8, "little") + (last - table_sectors - 1).to_bytes(8, "little")
            + identity(board, "disk").bytes_le + table.to_bytes(8, "little")
            + GPT_ENTRIES.to_bytes(4, "little") + GPT_ENTRY.to_bytes(4, "little") + zlib.crc32(entries).to_bytes(4, "little")
        )
        return (fields[:16] + zlib.crc32(fields).to_bytes(4, "little") + fields[20:]).ljust(SECTOR, b"\0")

    protective = bytearray(SECTOR)
    protective[446:462] = b"\0\0\x02\0\xee\xff\xff\xff" + (1).to_bytes(4, "little") + min(last, 0xFFFFFFFF).to_bytes(4, "little")
    protective[510:] = b"\x55\xaa"
    return {
        0: bytes(protective), SECTOR: header(1, last, 2), 2 * SECTOR: bytes(entries),
        (last - table_sectors) * SECTOR: bytes(entries), last * SECTOR: header(last, 1, last - table_sectors),
    }


def fat(into: pathlib.Path, size: int, label: str, bits: int, files: dict[str, pathlib.Path], epoch: int, order: list[str] | None = None,
        sectors_per_cluster: int = 0) -> None:
    """A FAT file system with these files, in the order of their names if not in this one."""
    into.unlink(missing_ok=True)
    with open(into, "wb") as file:
        file.truncate(size)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C"}
    # A sector a cluster where it is small enough for it leaves FAT32 to small partitions.
    run("/sbin/mkfs.vfat", "--invariant", "-F", str(bits), "-s", str(sectors_per_cluster or (1 if bits == 32 else 4)), "-n", label, "-i", "a17e0001", str(into), environment=environment)
    made = set()
    for name in order or sorted(files):
        for depth in range(1, name.count("/") + 1):
            folder = "/".join(name.split("/")[:depth])
            if folder not in made:
                run("mmd", "-i", str(into), f"::{folder}", environment=environment)
                made.add(folder)
        os.utime(files[name], (epoch, epoch))
        run("mcopy", "-m", "-i", str(into), str(files[name]), f"::{name}", environment=environment)


def choice_files(work: pathlib.Path, epoch: int) -> bytes:
    """A FAT file system in which the copies of the choice are files, for GRUB, which writes to files alone.

    It lies around them: each file is one cluster, at its place of the disk. GRUB writes that, and nothing else of the file system.
    """
    cluster = 2048
    whole = work / "choice.vfat"
    for number, _ in enumerate(PLACES):
        (work / f"choice-{number}").write_bytes(encode(_first(number), "grub"))
    # Once with small files, to see where the first of them comes to lie; then with what moves each to its place.
    at = lambda number: whole.read_bytes().index((work / f"choice-{number}").read_bytes()) + CHOICE_AT
    gaps = [0, 0]
    for _ in range(2):
        files = {}
        for number, gap in enumerate(gaps):
            (work / f"filler-{number}").write_bytes(bytes(gap))
            files |= {f"{number}-": work / f"filler-{number}", str(number): work / f"choice-{number}"}
        fat(whole, CHOICE_SIZE, "CHOICE", 16, files, epoch, order=list(files), sectors_per_cluster=cluster // SECTOR)
        gaps = [PLACES[0] - at(0) + gaps[0], PLACES[1] - PLACES[0] - cluster]
    data = whole.read_bytes()
    for number, place in enumerate(PLACES):
        assert data[place - CHOICE_AT :].startswith((work / f"choice-{number}").read_bytes()), f"copy {number} lies elsewhere: see gaps"
    return data


def ext4(into: pathlib.Path, size: int, board: str, epoch: int) -> None:
    """An empty ext4 file system that may grow to a thousand times its size."""
    into.unlink(missing_ok=True)
    with open(into, "wb") as file:
        file.truncate(size)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch), "LC_ALL": "C"}
    ids = identity(board, "data file system")
    # Small groups, so that there is a second one, which has a copy of the superblock: altnet-mend looks for it there.
    run("/sbin/mke2fs", "-q", "-t", "ext4", "-L", DATA_LABEL, "-U", str(ids), "-b", "4096", "-g", "8192", "-i", "16384", "-I", "256", "-m", "1", "-J", "size=4", "-O", "^orphan_file,metadata_csum,64bit",
        "-E", f"hash_seed={ids},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", str(into), environment=environment)


def assemble(into: pathlib.Path, board: str, table: str, loader: str, parts: dict[str, pathlib.Path], raw: dict[int, bytes]) -> None:
    """Puts the table, the first choice of slot, the partitions and what else lies on the bare disk together."""
    with open(into, "wb") as disk:
        disk.truncate(total_bytes())
        pieces = {0: mbr(board)} if table == "mbr" else gpt(board, bios=BIOS_AT in raw)
        for at, piece in raw.items():
            if at:
                pieces[at] = piece
        for copy, at in enumerate(PLACES):
            pieces[at] = encode(_first(copy), loader)
        for at, piece in pieces.items():
            disk.seek(at)
            disk.write(piece)
        if 0 in raw:  # a boot sector: its code, around the table that is there
            disk.seek(0)
            disk.write(raw[0][:440])
        for name, at, length in partitions():
            data = parts[name].read_bytes()
            assert len(data) == length, f"{name} has {len(data)} bytes, its partition {length}"
            disk.seek(at)
            disk.write(data)


def _first(copy: int) -> Choice:
    """What the copies of a new disk say: the same, the second one newer."""
    return replace(FIRST, serial=copy)
