"""Which libraries a program wants, read from the program: the dynamic section of 64-bit little-endian ELF."""

import pathlib
import struct

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5


def is_elf(path: pathlib.Path) -> bool:
    """Whether a file is ELF at all."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def wants(path: pathlib.Path) -> tuple[str | None, list[str]]:
    """The interpreter (a path), if there is one, and the names of the libraries that are loaded with this file.

    Source: System V ABI, chapters 4 and 5 (program header, dynamic section).
    """
    data = path.read_bytes()
    if data[4:6] != b"\x02\x01":
        raise ValueError(f"{path} is not a 64-bit little-endian program")
    at, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, at + size * number) for number in range(count)]
    interpreter, dynamic = None, []
    for kind, _, offset, _, _, length, _, _ in headers:
        if kind == PT_INTERP:
            interpreter = data[offset : offset + length].rstrip(b"\0").decode()
        if kind == PT_DYNAMIC:
            dynamic = list(struct.iter_unpack("<qQ", data[offset : offset + length // 16 * 16]))
    strings = next((_offset(headers, value) for tag, value in dynamic if tag == DT_STRTAB), 0)

    def string(value: int) -> str:
        return data[strings + value : data.index(b"\0", strings + value)].decode()

    return interpreter, [string(value) for tag, value in dynamic if tag == DT_NEEDED]


def _offset(headers: list[tuple], address: int) -> int:
    """Where in the file an address of the program is."""
    for kind, _, offset, virtual, _, length, _, _ in headers:
        if kind == PT_LOAD and virtual <= address < virtual + length:
            return offset + address - virtual
    raise ValueError("an address outside of the file")
