"""Readers of .ipk and .apk files, written from the formats' descriptions and not from our writers. They refuse whatever
isn't exactly as it should be, and account for every byte.

Source: POSIX.1 ustar (pax) with GNU's magic; RFC 1952 (gzip); apk-tools' apk-v3(5), src/adb.h and src/apk_adb.h.
"""

import hashlib
import pathlib
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass


class Wrong(Exception):
    """The file isn't what it should be."""


def check(is_good: bool, what: str) -> None:
    if not is_good:
        raise Wrong(what)


@dataclass
class Entry:
    kind: str  # "dir", "file" or "link"
    mode: int
    owner: str
    mtime: int | None
    data: bytes = b""
    target: str = ""


def gunzip(data: bytes) -> bytes:
    # Method deflate, no flags, no time: nothing that could differ from build to build.
    check(data[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "a gzip header with flags or a time")
    inflate = zlib.decompressobj(31)
    out = inflate.decompress(data)
    check(inflate.eof and not inflate.unused_data, "bytes behind the end of a gzip stream")
    return out


def tar(data: bytes) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    check(len(data) % 512 == 0, "a tar that isn't whole blocks")
    at = 0
    while any(head := data[at : at + 512]):
        text = lambda start, length: head[start : start + length].rstrip(b"\0 ").decode()
        octal = lambda start, length: int(text(start, length) or "0", 8)
        total = sum(head[:148]) + 8 * 32 + sum(head[156:])
        check(octal(148, 8) == total, f"the checksum of a header at {at}")
        check(head[257:265] == b"ustar  \0", f"the magic of a header at {at}")
        check((octal(108, 8), octal(116, 8)) == (0, 0), "an owner other than 0")
        name, size = text(0, 100), octal(124, 12)
        kind = {"0": "file", "2": "link", "5": "dir"}.get(chr(head[156]), "")
        check(bool(kind) and name not in entries, f"{name} twice, or of an unknown kind")
        check(kind == "file" or size == 0, f"{name} has bytes")
        body = data[at + 512 : at + 512 + size]
        padding = data[at + 512 + size : at + 512 + size + -size % 512]
        check(len(body) == size and not any(padding), f"the end of {name}")
        owner = f"{text(265, 32)}:{text(297, 32)}"
        entries[name] = Entry(kind, octal(100, 8), owner, octal(136, 12), body, text(157, 100))
        at += 512 + size + -size % 512
    check(len(data) - at >= 1024 and not any(data[at:]), "the end of a tar is 1024 bytes of zero")
    return entries


@dataclass
class Ipk:
    control: dict[str, Entry]
    data: dict[str, Entry]

    def fields(self) -> dict[str, str]:
        lines = self.control["./control"].data.decode().splitlines()
        return dict(line.split(": ", 1) for line in lines)


def ipk(data: bytes) -> Ipk:
    outer = tar(gunzip(data))
    check(list(outer) == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"], f"an .ipk of {list(outer)}")
    check(outer["./debian-binary"].data == b"2.0\n", "its version")
    return Ipk(tar(gunzip(outer["./control.tar.gz"].data)), tar(gunzip(outer["./data.tar.gz"].data)))


STRING, NUMBER = "string", "number"
DEPENDENCY = {1: ("name", STRING), 2: ("version", STRING), 3: ("match", NUMBER)}
RIGHTS = {1: ("mode", NUMBER), 2: ("user", STRING), 3: ("group", STRING)}
IN_FOLDER = {1: ("name", STRING), 2: ("acl", RIGHTS), 3: ("size", NUMBER), 4: ("mtime", NUMBER), 5: ("hash", STRING), 6: ("target", STRING)}
INFO = {
    1: ("name", STRING), 2: ("version", STRING), 3: ("hashes", STRING), 4: ("description", STRING), 5: ("arch", STRING),
    6: ("license", STRING), 7: ("origin", STRING), 8: ("maintainer", STRING), 9: ("url", STRING),
    12: ("installed-size", NUMBER), 15: ("depends", [DEPENDENCY]),
}
SCRIPTS = {1: ("trigger", STRING), 2: ("pre-install", STRING), 3: ("post-install", STRING), 4: ("pre-deinstall", STRING),
           5: ("post-deinstall", STRING), 6: ("pre-upgrade", STRING), 7: ("post-upgrade", STRING)}
PACKAGE = {1: ("info", INFO), 2: ("paths", [{1: ("name", STRING), 2: ("acl", RIGHTS), 3: ("files", [IN_FOLDER])}]), 3: ("scripts", SCRIPTS)}


class _Walk:
    """Reads values, and remembers which bytes it has read."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.read = bytearray(len(body))
        self.take(0, 8)

    def take(self, at: int, length: int) -> bytes:
        check(at + length <= len(self.body), f"a value at {at} beyond the end")
        self.read[at : at + length] = b"\1" * length
        return self.body[at : at + length]

    def value(self, word: int, schema: object) -> object:
        kind, at = word >> 28, word & 0x0FFFFFFF
        if schema == NUMBER:
            check(kind in (1, 2, 3), f"a number of type {kind}")
            if kind == 1:
                return at
            check(at % 4 == 0, f"a number at {at}")
            number = int.from_bytes(self.take(at, 4 if kind == 2 else 8), "little")
            check(number > 0x0FFFFFFF and (kind == 2 or number > 0xFFFFFFFF), "a number that takes too much")
            return number
        if schema == STRING:
            width = {8: 1, 9: 2, 10: 4}.get(kind, 0)
            check(width > 0 and at % width == 0, f"a string of type {kind} at {at}")
            length = int.from_bytes(self.take(at, width), "little")
            check(length > {1: 0, 2: 0xFF, 4: 0xFFFF}[width], "a string whose length takes too much")
            return self.take(at + width, length)
        check(kind == 14 and at % 4 == 0, f"an object of type {kind} at {at}")
        count = int.from_bytes(self.take(at, 4), "little")
        check(count > 1, "an object without fields")
        words = struct.unpack(f"<{count - 1}I", self.take(at + 4, 4 * (count - 1)))
        check(words[-1] != 0, "an object that ends with null")
        if isinstance(schema, list):
            return [self.value(word, schema[0]) for word in words]
        found = {}
        for number, word in enumerate(words, 1):
            if word:
                check(number in schema, f"a field {number}")
                name, inner = schema[number]
                found[name] = self.value(word, inner)
        return found

    def finish(self) -> None:
        """Everything was read, but for zeros before what is aligned."""
        for at, was_read in enumerate(self.read):
            check(bool(was_read) or self.body[at] == 0, f"byte {at} belongs to nothing")
        check(self.read.count(0) <= len(self.body) // 8, "too much is padding")


@dataclass
class Apk:
    package: dict
    body: bytes
    signatures: list[bytes]
    data: dict[str, Entry]
    scripts: dict[str, str]


def apk(data: bytes) -> Apk:
    if data[:4] == b"ADBd":
        inflate = zlib.decompressobj(-15)
        data = inflate.decompress(data[4:])
        check(inflate.eof and not inflate.unused_data, "bytes behind the end of the stream")
    check(data[:8] == b"ADB.pckg", "the header of a package")
    at, body, signatures, contents, last = 8, b"", [], [], 0
    while at < len(data):
        word = int.from_bytes(data[at : at + 4], "little")
        kind, size = word >> 30, word & 0x3FFFFFFF
        payload = data[at + 4 : at + size]
        end = at + size + -size % 8
        check(size >= 4 and end <= len(data) and not any(data[at + size : end]), f"the end of a block at {at}")
        check(kind >= last and kind < 3 and (kind == 0) == (at == 8), f"a block of type {kind} at {at}")
        if kind == 0:
            body = payload
        elif kind == 1:
            signatures.append(payload)
        else:
            contents.append((*struct.unpack("<II", payload[:8]), payload[8:]))
        at, last = end, kind
    check(body[:4] == bytes(4), "its version")
    walk = _Walk(body)
    package = walk.value(int.from_bytes(body[4:8], "little"), PACKAGE)
    walk.finish()
    without_id = body.replace(package["info"]["hashes"], bytes(20))
    check(hashlib.sha256(without_id).digest()[:20] == package["info"]["hashes"], "its id")
    entries = _entries(package, contents)
    scripts = {name: text.decode() for name, text in package.get("scripts", {}).items()}
    return Apk(package, body, signatures, entries, scripts)


def _entries(package: dict, contents: list[tuple[int, int, bytes]]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    names = [path.get("name", b"") for path in package["paths"]]
    check(names == sorted(set(names)), "folders out of order")
    rest = iter(contents)
    for number, path in enumerate(package["paths"], 1):
        folder = path.get("name", b"").decode()
        entries[f"./{folder}"] = Entry("dir", path["acl"]["mode"], _owner(path), None)
        files = path.get("files", [])
        check([file["name"] for file in files] == sorted({file["name"] for file in files}), f"{folder} out of order")
        for place, file in enumerate(files, 1):
            name = f"./{folder}/{file['name'].decode()}".replace("//", "/")
            entry = Entry("file", file["acl"]["mode"], _owner(file), file["mtime"])
            if "target" in file:
                check(file["target"][:2] == struct.pack("<H", 0o120000), f"{name} is no link")
                entry.kind, entry.target = "link", file["target"][2:].decode()
                check(file["size"] == len(file["target"]) - 2, f"the size of {name}")
            elif file["size"]:
                at, at_file, entry.data = next(rest, (0, 0, b""))
                check((at, at_file) == (number, place), f"the bytes of {name} aren't where they should be")
                check(len(entry.data) == file["size"], f"the size of {name}")
            check("target" in file or hashlib.sha256(entry.data).digest() == file["hash"], f"the hash of {name}")
            entries[name] = entry
    check(next(rest, None) is None, "bytes of no file")
    return entries


def _owner(of: dict) -> str:
    return f"{of['acl']['user'].decode()}:{of['acl']['group'].decode()}"


def check_signature(found: Apk, public: pathlib.Path) -> None:
    """One signature, by the key whose public half is in a PEM file."""
    check(len(found.signatures) == 1, f"{len(found.signatures)} signatures")
    signature = found.signatures[0]
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"], capture_output=True, check=True).stdout
    check(signature[:2] == b"\0\4" and signature[2:18] == hashlib.sha512(der[-65:]).digest()[:16], "the key of the signature")
    signed = struct.pack("<I", 0x676B6370) + signature[:18] + hashlib.sha512(found.body).digest()
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature[18:])
        file.flush()
        verify = ["openssl", "dgst", "-sha512", "-verify", public, "-signature", file.name]
        done = subprocess.run(verify, input=signed, capture_output=True)
    check(done.returncode == 0, "the signature")
