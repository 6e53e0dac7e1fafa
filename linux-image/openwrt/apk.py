"""Writes an .apk of version 3, as OpenWrt's apk has taken them since 25.12.

In: a `Package`, and maybe a key. Out: the file's bytes. They are the same for the same package; with a key all are
but those of the signature, because ECDSA as openssl does it draws a number.

Source: apk-tools' apk-v3(5), src/apk_adb.h (the fields' numbers), src/app_mkpkg.c (what is in them), src/adb.c
(signatures).
"""

import hashlib
import pathlib
import struct
import subprocess
import zlib

import adb
from package import File, Link, Package

# Fields of a package.
INFO, PATHS, SCRIPTS = 1, 2, 3
# Of its info.
NAME, VERSION, HASHES, DESCRIPTION, ARCH, LICENSE, ORIGIN, MAINTAINER = 1, 2, 3, 4, 5, 6, 7, 8
INSTALLED_BYTES, DEPENDS = 0xC, 0xF
# Of a folder and of a file.
ACL, FILES = 2, 3
SIZE, MTIME, HASH, TARGET = 3, 4, 5, 6
# Of who may do what.
MODE, USER, GROUP = 1, 2, 3
SCRIPT_NUMBERS = {"post-install": 3, "pre-deinstall": 4, "pre-upgrade": 6, "post-upgrade": 7}

S_IFLNK = 0o120000
ID_BYTES = 20
SHA512 = 4  # apk_digest of apk_crypto.h
KEY_ID_BYTES = 16
P256_POINT_BYTES = 65


def build(package: Package, key: pathlib.Path | None = None, is_compressed: bool = True) -> bytes:
    """The package's file; signed if there is a key, an EC key on P-256 in PEM."""
    body, data = _database(package)
    out = adb.header(adb.PACKAGE) + adb.block(adb.ADB, body)
    if key:
        out += adb.block(adb.SIG, _signature(body, key))
    out += b"".join(data)
    if not is_compressed:
        return out
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"ADBd" + deflate.compress(out) + deflate.flush()


def _database(package: Package) -> tuple[bytes, list[bytes]]:
    db = adb.Adb()
    info = {
        NAME: db.blob(package.name),
        VERSION: db.blob(package.version),
        DESCRIPTION: db.blob(package.description),
        ARCH: db.blob(package.arch),
        LICENSE: db.blob(package.license),
        ORIGIN: db.blob(package.name),
        MAINTAINER: db.blob(package.maintainer),
        # Written as they come, listed in order.
        DEPENDS: _depends(db, package.depends),
    }
    paths, data = [], []
    for folder, entries in package.folders("apk"):
        files = []
        for entry in entries:
            files.append(_file(db, package, entry))
            if isinstance(entry, File) and entry.data:
                place = struct.pack("<II", len(paths) + 1, len(files))
                data.append(adb.block(adb.DATA, place + entry.data))
        name = db.blob(folder)
        acl = _acl(db, 0o755)
        paths.append(db.object({NAME: name, ACL: acl, FILES: db.list(files)}))
    info[INSTALLED_BYTES] = db.integer(package.installed_bytes("apk"))
    info[HASHES] = db.blob(bytes(ID_BYTES), is_own=True)
    whole = {INFO: db.object(info), PATHS: db.list(paths)}
    scripts = {SCRIPT_NUMBERS[name]: text for name, text in package.apk_scripts().items()}
    whole[SCRIPTS] = db.object({number: db.blob(scripts[number]) for number in sorted(scripts)})
    db.root(db.object(whole))
    # An id of this very package: the hash of everything else.
    at = (info[HASHES] & adb.MOST_DIRECT) + 1
    db.bytes[at : at + ID_BYTES] = hashlib.sha256(db.bytes).digest()[:ID_BYTES]
    return bytes(db.bytes), data


def _depends(db: adb.Adb, names: tuple[str, ...]) -> int:
    values = {name: db.object({NAME: db.blob(name)}) for name in names}
    return db.list([values[name] for name in sorted(values)])


def _acl(db: adb.Adb, mode: int) -> int:
    return db.object({MODE: db.integer(mode), USER: db.blob("root"), GROUP: db.blob("root")})


def _file(db: adb.Adb, package: Package, entry: File | Link) -> int:
    fields = {NAME: db.blob(entry.name)}
    if isinstance(entry, File):
        fields[HASH] = db.blob(hashlib.sha256(entry.data).digest())
        mode, size = entry.mode, len(entry.data)
    else:
        fields[TARGET] = db.blob(struct.pack("<H", S_IFLNK) + entry.target.encode())
        mode, size = 0o777, len(entry.target.encode())
    fields[MTIME] = db.integer(package.epoch)
    fields[SIZE] = db.integer(size)
    fields[ACL] = _acl(db, mode)
    return db.object(fields)


def _signature(body: bytes, key: pathlib.Path) -> bytes:
    head = struct.pack("<BB", 0, SHA512) + key_id(key)
    signed = struct.pack("<I", adb.PACKAGE) + head + hashlib.sha512(body).digest()
    return head + _openssl("dgst", "-sha512", "-sign", str(key), given=signed)


def key_id(key: pathlib.Path) -> bytes:
    """What apk calls a key: a part of the hash of its public point, which ends its DER form."""
    point = _openssl("pkey", "-in", str(key), "-pubout", "-outform", "DER")[-P256_POINT_BYTES:]
    if point[:1] != b"\x04":
        raise ValueError(f"{key} is no EC key on P-256; make one: openssl ecparam -name prime256v1 -genkey -noout -out {key}")
    return hashlib.sha512(point).digest()[:KEY_ID_BYTES]


def _openssl(*arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True)
    if done.returncode:
        raise ValueError(f"openssl {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
