"""What the firmware reads: U-Boot's script on the boot partition, or GRUB for EFI and BIOS, made from `boot/`."""

import pathlib
import shutil
import zlib

from . import disk
from .boards import Board, BuildError
from .choice import PLACES
from .root import ROOM, run

ARGUMENTS = "panic=5 quiet loglevel=4"
GRUB_MODULES = ("part_gpt", "part_msdos", "fat", "normal", "test", "true", "regexp", "loadenv", "linux", "echo", "sleep", "reboot", "halt", "serial", "minicmd")
GRUB_FORMATS = {"i386-pc": ("biosdisk",), "x86_64-efi": ("efi_gop", "all_video")}
GRUB_PACKAGES = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin"}


def arguments(board: Board) -> str:
    """The kernel's command line but for the slot."""
    return " ".join([*(f"console={console}" for console in board.console), ARGUMENTS])


def u_boot_script(board: Board) -> str:
    """The text of boot.scr: the board's values, then the choice, then the loading."""
    values = {key: value.removeprefix("0x") for key, value in board.boot.items() if key != "loader"}
    values |= {f"choice_{copy}": f"{at // disk.SECTOR:x}" for copy, at in enumerate(PLACES)}
    head = [f'setenv {key} "{value}"' for key, value in [*values.items(), ("arguments", arguments(board))]]
    body = [(ROOM / f"boot/u-boot-{part}.cmd").read_text() for part in ("choose", "load")]
    return "\n".join([*head, "${devtype} dev ${devnum}", *body])


def u_boot_image(text: str, epoch: int) -> bytes:
    """A script as U-Boot's legacy image, as `mkimage -A arm64 -O linux -T script -C none` makes it.

    Source: U-Boot, include/image.h: ih_magic to ih_name, big-endian; a script is a list of lengths, ended by 0, and the texts.
    """
    script = text.encode()
    data = len(script).to_bytes(4, "big") + bytes(4) + script
    linux, arm64, kind, plain = 5, 22, 6, 0

    def header(checksum: int) -> bytes:
        words = (0x27051956, checksum, epoch, len(data), 0, 0, zlib.crc32(data))
        return b"".join(word.to_bytes(4, "big") for word in words) + bytes([linux, arm64, kind, plain]) + b"altnet".ljust(32, b"\0")

    return header(zlib.crc32(header(0))) + data


def grub_config(board: Board) -> str:
    """The text of grub.cfg."""
    head = [
        f'set {key}="{value}"' for key, value in [
            *((f"choice_{copy}", f"($disk,gpt{disk.CHOICE_NUMBER})/{copy}") for copy in range(len(PLACES))), ("arguments", arguments(board)),
        ]
    ]
    start = [
        "regexp --set 1:disk '^([^,]+)' \"$root\"",
        'if [ "$grub_platform" = pc ]; then serial --unit=0 --speed=115200; terminal_output console serial; fi',
    ]
    body = [(ROOM / f"boot/grub-{part}.cfg").read_text() for part in ("choose", "load")]
    return "\n".join([*start, *head, *body])


class Grub:
    """GRUB, put together from its parts in Debian's packages by its own tool, which is of the machine that builds."""

    def __init__(self, tool: pathlib.Path, parts: dict[str, pathlib.Path], work: pathlib.Path):
        self.tool, self.work = tool, work
        self.parts = {kind: folder / "usr/lib/grub" / kind for kind, folder in parts.items()}

    def image(self, kind: str) -> bytes:
        """A core that finds /grub/grub.cfg on the partition it came from (EFI), or on the first of its disk (BIOS)."""
        out = self.work / f"core.{kind}"
        run(str(self.tool), "-d", str(self.parts[kind]), "-O", kind, "-o", str(out),
            "-p", "(,gpt1)/grub", *GRUB_FORMATS[kind], *GRUB_MODULES)
        return out.read_bytes()

    def bios(self) -> dict[int, bytes]:
        """The boot sector and the core as they lie on the disk, with the places where each finds the rest.

        Source: GRUB, include/grub/i386/pc/boot.h and grub-core/boot/i386/pc/{boot,diskboot}.S.
        """
        boot = bytearray((self.parts["i386-pc"] / "boot.img").read_bytes())
        core = bytearray(self.image("i386-pc"))
        core.extend(bytes(-len(core) % disk.SECTOR))
        if len(core) > disk.BIOS_SIZE:
            raise BuildError(f"GRUB's core has {len(core)} bytes, its partition {disk.BIOS_SIZE}")
        first = disk.BIOS_AT // disk.SECTOR
        boot[0x5C:0x64] = first.to_bytes(8, "little")  # GRUB_BOOT_MACHINE_KERNEL_SECTOR
        boot[0x64] = 0xFF  # GRUB_BOOT_MACHINE_BOOT_DRIVE: whichever this was read from
        boot[0x66:0x68] = b"\x90\x90"  # GRUB_BOOT_MACHINE_DRIVE_CHECK: don't second-guess the BIOS's number
        # The core's first sector ends with one list of blocks: where the rest is. Its length and segment are right already.
        core[500:508] = (first + 1).to_bytes(8, "little")
        if int.from_bytes(core[508:510], "little") != len(core) // disk.SECTOR - 1:
            raise BuildError("GRUB's core doesn't say its length where it did: see boot.py")
        return {0: bytes(boot), disk.BIOS_AT: bytes(core)}


def boot_files(board: Board, firmware: dict[str, pathlib.Path], grub: Grub | None, work: pathlib.Path, epoch: int) -> dict[str, pathlib.Path]:
    """Everything on the boot partition, by its place there."""
    work.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {place: text.encode() for place, text in board.files.items()}
    if board.loader == "u-boot":
        files["boot.scr"] = u_boot_image(u_boot_script(board), epoch)
    else:
        files["grub/grub.cfg"] = grub_config(board).encode()
        files["EFI/BOOT/BOOTX64.EFI"] = grub.image("x86_64-efi")
    placed = {}
    for number, (place, data) in enumerate(sorted(files.items())):
        placed[place] = work / f"{number}"
        placed[place].write_bytes(data)
    for number, (place, source) in enumerate(sorted(firmware.items()), len(placed)):
        placed[place] = work / f"{number}"
        shutil.copyfile(source, placed[place])
    return placed
