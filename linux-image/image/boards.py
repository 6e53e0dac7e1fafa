"""What a board is: `board-support/linux/<board>/board.toml`, read once and checked. Code knows no board."""

import pathlib
import tomllib
from dataclasses import dataclass

LED_ROLES = ("status", "internet", "network")
ROOM = pathlib.Path(__file__).resolve().parents[2] / "board-support" / "linux"


class BuildError(Exception):
    """An image can't be made; the message says why and what to do."""


@dataclass(frozen=True)
class Board:
    """A board, as its file says."""

    name: str
    path: pathlib.Path
    title: str
    architecture: str  # Debian's name
    target: str  # Rust's
    partitions: str  # mbr or gpt
    console: list[str]
    leds: dict[str, str]  # names below /sys/class/leds, by what they show: LED_ROLES
    button: int | None  # the key's code, as in the kernel's input-event-codes.h
    ports: dict
    boot: dict[str, str]
    image_bytes: int  # compressed, at most
    slot_bytes: int  # of the files in a slot, at most
    memory_mb: int
    kernel: str  # Debian's package that names the newest one
    modules: list[str]
    initrd_modules: list[str]
    rescue_modules: list[str]  # of its ports, in the initial RAM disk
    firmware: dict[str, dict[str, str]]  # by package: place on the boot partition, place in the package
    packages: dict[str, dict[str, str]]  # the same for the running system
    files: dict[str, str]  # texts on the boot partition

    @property
    def loader(self) -> str:
        return self.boot["loader"]


def names() -> list[str]:
    """The boards that there are."""
    return sorted(path.parent.name for path in ROOM.glob("*/board.toml"))


def load(name: str) -> Board:
    """Reads a board's file; a key that isn't known, or isn't there, is an error that names it."""
    path = ROOM / name / "board.toml"
    if not path.is_file():
        raise BuildError(f"there is no board {name}; there are {', '.join(names())}. A board is a folder with a board.toml in board-support/linux")
    said = tomllib.loads(path.read_text())

    def take(table: dict, key: str, *default):
        if key not in table and not default:
            raise BuildError(f"{path}: {key} is missing")
        return table.pop(key, *default)

    budget, kernel = take(said, "budget"), take(said, "kernel")
    board = Board(
        name=name, path=path, title=take(said, "title"), architecture=take(said, "architecture"), target=take(said, "target"),
        partitions=take(said, "partitions"), console=take(said, "console"), leds=take(said, "leds", {}), button=take(take(said, "button", {}), "key", None), ports=take(said, "ports"),
        boot=take(said, "boot"), image_bytes=take(budget, "image_bytes"), slot_bytes=take(budget, "slot_bytes"),
        memory_mb=take(budget, "memory_mb"), kernel=take(kernel, "package"), modules=take(kernel, "modules"),
        initrd_modules=take(kernel, "initrd"), rescue_modules=take(kernel, "rescue"), firmware=take(said, "firmware", {}), packages=take(said, "packages", {}),
        files={entry["path"]: entry["text"].lstrip("\n") for entry in take(said, "file", [])},
    )
    unknown = [*said, *(f"budget.{key}" for key in budget), *(f"kernel.{key}" for key in kernel)]
    if unknown:
        raise BuildError(f"{path}: {', '.join(unknown)} is not known here")
    allowed = {"architecture": ("arm64", "amd64"), "partitions": ("mbr", "gpt"), "loader": ("u-boot", "grub")}
    for key, values in allowed.items():
        if getattr(board, key) not in values:
            raise BuildError(f"{path}: {key} is {' or '.join(values)}, not {getattr(board, key)}")
    if unknown := set(board.leds) - set(LED_ROLES):
        raise BuildError(f"{path}: leds are {', '.join(LED_ROLES)}, not {', '.join(sorted(unknown))}")
    if board.loader == "grub" and board.partitions != "gpt":
        raise BuildError(f"{path}: GRUB's script here names partitions of a GPT")
    return board
