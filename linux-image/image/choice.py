"""The choice of slot: both formats and the rules of `boot/README.md`.

What the boot loaders' scripts and the running system's do is judged by this; `cases` yields the table `boot/cases.tsv`.
"""

import re
import zlib
from dataclasses import dataclass, replace

PLACES = (4 << 20, 8 << 20)  # bytes of the disk, copy 0 and copy 1
MOST_TRIES = 3
SIZES = {"u-boot": 512, "grub": 1024}
SIGNATURE = b"# GRUB Environment Block\n"


@dataclass(frozen=True)
class Choice:
    """Which slot is asked first, how often each may still be begun, and how new this is."""

    order: str
    tries_a: int
    tries_b: int
    serial: int

    def __str__(self) -> str:
        return f"{self.order}{self.tries_a}{self.tries_b}{self.serial}"


FIRST = Choice("AB", MOST_TRIES, MOST_TRIES, 0)


def parse(text: str) -> Choice | None:
    """A choice as `str` writes it, like `AB331`; None if it isn't one."""
    if not re.fullmatch(r"(AB|BA)[0-3][0-3][0-9]", text, re.ASCII):
        return None
    return Choice(text[:2], int(text[2]), int(text[3]), int(text[4]))


def encode(choice: Choice, loader: str) -> bytes:
    """The bytes of a copy."""
    lines = [f"order={choice.order}", f"serial={choice.serial}", f"tries_a={choice.tries_a}", f"tries_b={choice.tries_b}"]
    if loader == "u-boot":
        body = ("\0".join(lines) + "\0\0").encode().ljust(SIZES[loader] - 4, b"\0")
        return zlib.crc32(body).to_bytes(4, "little") + body
    lines.append(f"check={choice}")
    return (SIGNATURE + "".join(f"{line}\n" for line in lines).encode()).ljust(SIZES[loader], b"#")


def decode(copy: bytes, loader: str) -> Choice | None:
    """What a copy says; None if it isn't good."""
    if len(copy) != SIZES[loader]:
        return None
    if loader == "u-boot":
        if zlib.crc32(copy[4:]) != int.from_bytes(copy[:4], "little"):
            return None
        lines = copy[4:].split(b"\0\0")[0].split(b"\0")
    else:
        if not copy.startswith(SIGNATURE):
            return None
        lines = [line for line in copy.split(b"\n") if not line.startswith(b"#")]
    said = dict(line.split(b"=", 1) for line in lines if b"=" in line)
    values = b"".join(said.get(name, b"?") for name in (b"order", b"tries_a", b"tries_b", b"serial"))
    if loader == "grub" and said.get(b"check") != values:
        return None
    return parse(values.decode("latin-1"))


def counts(copies: tuple[Choice | None, Choice | None]) -> int | None:
    """The number of the copy that counts; None if neither is good."""
    first, second = copies
    if first and second:
        return 1 if 1 <= (second.serial - first.serial) % 10 <= 4 else 0
    return 0 if first else 1 if second else None


def written(copies: tuple[Choice | None, Choice | None]) -> int:
    """The number of the copy that is written next."""
    return 1 if counts(copies) == 0 else 0


def current(copies: tuple[Choice | None, Choice | None]) -> Choice:
    """What counts."""
    number = counts(copies)
    return replace(FIRST, serial=9) if number is None else copies[number]


def boot(copies: tuple[Choice | None, Choice | None]) -> tuple[str, Choice]:
    """The slot that is begun, and the choice that is written before."""
    choice = current(copies)
    if not choice.tries_a and not choice.tries_b:
        choice = replace(choice, tries_a=MOST_TRIES, tries_b=MOST_TRIES)
    slot = next(slot for slot in choice.order if getattr(choice, f"tries_{slot.lower()}"))
    name = f"tries_{slot.lower()}"
    return slot, replace(choice, **{name: getattr(choice, name) - 1, "serial": (choice.serial + 1) % 10})


def good(copies: tuple[Choice | None, Choice | None], slot: str) -> Choice:
    """The choice that is written when a slot works: it has all its tries."""
    choice = current(copies)
    return replace(choice, **{f"tries_{slot.lower()}": MOST_TRIES, "serial": (choice.serial + 1) % 10})


def cases() -> list[tuple[str, str]]:
    """Pairs of copies, `-` for a bad one, that together go through every rule."""
    every = [f"{order}{a}{b}" for order in ("AB", "BA") for a in range(4) for b in range(4)]
    alone = [pair for one in every for pair in ((f"{one}4", "-"), ("-", f"{one}9"))]
    ages = [(f"AB30{first}", f"BA03{second}") for first in range(10) for second in range(10)]
    return [("-", "-"), *alone, *ages]


def table() -> str:
    """`boot/cases.tsv`: copy 0, copy 1, the slot, which copy is written, and what."""
    rows = ["# copy 0\tcopy 1\tslot\twrites copy\twhat: order, tries of A, tries of B, serial"]
    for pair in cases():
        copies = (parse(pair[0]), parse(pair[1]))
        slot, choice = boot(copies)
        rows.append("\t".join([*pair, slot, str(written(copies)), str(choice)]))
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
