"""ADB, the binary format of apk v3: values, and blocks that hold them.

A value is a 32-bit word, little-endian: a type in its high 4 bits, and in the others the value itself or where it
is in the ADB block. Lists and objects are rows of such words behind their count. Values that are there already are
not written again, as in apk-tools.

Source: apk-tools' apk-v3(5) and src/adb.h.
"""

import struct

INT, INT_32, INT_64 = 0x10000000, 0x20000000, 0x30000000
BLOB_8, BLOB_16, BLOB_32 = 0x80000000, 0x90000000, 0xA0000000
OBJECT = 0xE0000000
NULL = 0
MOST_DIRECT = 0x0FFFFFFF

# Kinds of blocks, and their alignment in bytes.
ADB, SIG, DATA = 0, 1, 2
ALIGNMENT = 8
MOST_IN_BLOCK = 0x3FFFFFFF

MAGIC = 0x2E424441
PACKAGE = 0x676B6370


class Adb:
    """The ADB block's bytes as they grow."""

    def __init__(self) -> None:
        # Two versions, two bytes that are free, and the root value, which comes last.
        self.bytes = bytearray(8)
        self._there: dict[bytes, int] = {}

    def _put(self, data: bytes, alignment: int) -> int:
        self.bytes += bytes(-len(self.bytes) % alignment)
        at = len(self.bytes)
        self.bytes += data
        return at

    def _at(self, data: bytes, alignment: int) -> int:
        at = self._there.get(data)
        if at is None or at % alignment:
            at = self._there[data] = self._put(data, alignment)
        return at

    def integer(self, value: int) -> int:
        if value <= MOST_DIRECT:
            return INT | value
        if value < 1 << 32:
            return INT_32 | self._at(struct.pack("<I", value), 4)
        return INT_64 | self._at(struct.pack("<Q", value), 4)

    def blob(self, value: bytes | str, is_own: bool = False) -> int:
        """A string. With `is_own` nothing else shares its bytes, so that they can be changed."""
        value = value.encode() if isinstance(value, str) else value
        if not value:
            return NULL
        for kind, limit, form in ((BLOB_8, 0xFF, "<B"), (BLOB_16, 0xFFFF, "<H"), (BLOB_32, 0xFFFFFFFF, "<I")):
            if len(value) <= limit:
                data = struct.pack(form, len(value)) + value
                alignment = struct.calcsize(form)
                return kind | (self._put if is_own else self._at)(data, alignment)
        raise ValueError("a string of 4 GB")

    def object(self, fields: dict[int, int]) -> int:
        """Fields by their numbers, from 1 on; those that are null at the end are left out."""
        last = max((number for number, value in fields.items() if value != NULL), default=0)
        if not last:
            return NULL
        row = [last + 1] + [fields.get(number, NULL) for number in range(1, last + 1)]
        return OBJECT | self._at(struct.pack(f"<{len(row)}I", *row), 4)

    def list(self, values: list[int]) -> int:
        return self.object(dict(enumerate(values, 1)))

    def root(self, value: int) -> None:
        struct.pack_into("<I", self.bytes, 4, value)


def header(schema: int) -> bytes:
    return struct.pack("<II", MAGIC, schema)


def block(kind: int, data: bytes) -> bytes:
    length = len(data) + 4
    if length > MOST_IN_BLOCK:
        raise ValueError("a block has at most 1 GB")
    return struct.pack("<I", kind << 30 | length) + data + bytes(-length % ALIGNMENT)
