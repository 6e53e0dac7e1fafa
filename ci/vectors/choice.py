"""The choice of slot (linux-image/boot/README.md): the table is the rules', both formats have their exact bytes, and the running
system's own script decides as the table does. Where U-Boot's and GRUB's own tools are installed, they judge the formats too.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "linux-image"))

from image import choice  # noqa: E402
from image.choice import Choice  # noqa: E402

EXAMPLE = Choice("BA", 0, 3, 7)
U_BOOT = bytes.fromhex("b41ca034") + b"order=BA\0serial=7\0tries_a=0\0tries_b=3\0\0" + bytes(469)
GRUB = b"# GRUB Environment Block\norder=BA\nserial=7\ntries_a=0\ntries_b=3\ncheck=BA037\n" + b"#" * 949


def the_table_is_what_the_rules_say() -> None:
    assert (ROOT / "linux-image/boot/cases.tsv").read_text() == choice.table(), "print it anew: linux-image/image/choice.py"


def both_formats_have_these_bytes() -> None:
    for loader, expected in (("u-boot", U_BOOT), ("grub", GRUB)):
        found = choice.encode(EXAMPLE, loader)
        assert found == expected, f"{loader}: {found!r}"
        assert choice.decode(found, loader) == EXAMPLE, loader
        for at in range(len(found)):  # one letter is another: it is bad, or it says the same
            torn = found[:at] + bytes([found[at] ^ 1]) + found[at + 1 :]
            assert choice.decode(torn, loader) in (None, EXAMPLE), f"{loader}: byte {at}"


def u_boots_own_tools_agree(folder: pathlib.Path) -> None:
    if not shutil.which("mkenvimage"):
        return print("skipped: mkenvimage is not here (Debian's u-boot-tools)")
    text = "".join(f"{line}\n" for line in ("order=BA", "serial=7", "tries_a=0", "tries_b=3"))
    (folder / "text").write_text(text)
    subprocess.run(["mkenvimage", "-s", "512", "-p", "0", "-o", folder / "made", folder / "text"], check=True)
    assert (folder / "made").read_bytes() == U_BOOT


def grubs_own_tools_agree(folder: pathlib.Path) -> None:
    if not shutil.which("grub-editenv"):
        return print("skipped: grub-editenv is not here (Debian's grub-common)")
    (folder / "block").write_bytes(GRUB)
    said = subprocess.run(["grub-editenv", folder / "block", "list"], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["order=BA", "serial=7", "tries_a=0", "tries_b=3", "check=BA037"], said


def the_running_system_decides_as_the_table_does(folder: pathlib.Path) -> None:
    """Marks a slot as good, with every third case: the shell is slow."""
    script, disk = ROOT / "linux-image/root/usr/sbin/altnet-slot", folder / "disk"
    for loader in choice.SIZES:
        for number, (first, second) in enumerate(choice.cases()[::3]):
            copies = (choice.parse(first), choice.parse(second))
            slot = "AB"[number % 2]
            with open(disk, "wb") as file:
                file.truncate(12 << 20)
                for copy, at in zip(copies, choice.PLACES):
                    file.seek(at)
                    file.write(choice.encode(copy, loader) if copy else os.urandom(choice.SIZES[loader]))
            before = disk.read_bytes()
            subprocess.run(["sh", script, "good"], check=True, env={**os.environ, "DISK": str(disk), "SLOT": slot, "LOADER": loader})
            found = tuple(choice.decode(disk.read_bytes()[at : at + choice.SIZES[loader]], loader) for at in choice.PLACES)
            expected = list(copies)
            if choice.counts(copies) is None or getattr(choice.current(copies), f"tries_{slot.lower()}") != choice.MOST_TRIES:
                expected[choice.written(copies)] = choice.good(copies, slot)
            else:
                assert disk.read_bytes() == before, f"{loader} {first} {second}: written without a reason"
            assert found == tuple(expected), f"{loader} {first} {second}, {slot} is good: {found}, expected {expected}"


def main() -> None:
    the_table_is_what_the_rules_say()
    both_formats_have_these_bytes()
    # On a disk rather than in memory: the script reads past the cache.
    with tempfile.TemporaryDirectory(dir=os.environ.get("CARGO_TARGET_DIR", ROOT)) as name:
        folder = pathlib.Path(name)
        u_boots_own_tools_agree(folder)
        grubs_own_tools_agree(folder)
        the_running_system_decides_as_the_table_does(folder)
    print(f"the choice of slot: {len(choice.cases())} cases, both formats")


if __name__ == "__main__":
    main()
