#!/usr/bin/env python3
"""Rebuilds and verifies the bundles of firmware/altnet-update/tests/bundle.json.

    ci/vectors/bundle.py              checks the vectors
    ci/vectors/bundle.py FILE KEY...  verifies a bundle by release keys, as `altnet-provision release
                                      verify` does, and says what it is
    ci/vectors/bundle.py --write      makes the vectors anew

Written from the format's description alone, with Python's standard library: the first bundle is made
here byte by byte, with zstd frames of raw and repeated blocks (RFC 8878 section 3.1.1.2). The second is
one that altnet made; its frames are decompressed by the `zstd` command where that is installed, and
without it only its hashes are checked. Exit 0 if all agrees, 1 if not.
"""

import base64
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

from records import (
    BASE, D, L, P, compress, fixed, group, labelled, many, optional, point_add, point_mul, public,
    recover_x, sha512_int, sign, text, varint,
)

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "firmware/altnet-update/tests/bundle.json"
PIECE = 1 << 20
MAGIC, VERSION = b"ALTNETUP", 1


def sha256(data):
    return hashlib.sha256(data).digest()


# --- The manifest ---------------------------------------------------------------------------

KEY_SET = group(("generation", varint), ("threshold", lambda n: bytes([n])), ("keys", many(fixed)))
FRAME = group(("packed_bytes", varint), ("packed", fixed), ("plain", fixed))
MANIFEST = group(
    ("product", text), ("board", text), ("version", text), ("counter", varint), ("floor", varint),
    ("made", varint), ("not_after", varint), ("keys", optional(KEY_SET)), ("slot_bytes", varint),
    ("frames", many(FRAME)))


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        assert self.at <= len(self.data), "cut off"
        return self.data[self.at - count:self.at]

    def varint(self):
        value = shift = 0
        while True:
            octet = self.take(1)[0]
            value |= (octet & 0x7F) << shift
            shift += 7
            if not octet & 0x80:
                return value

    def text(self):
        return self.take(self.varint()).decode()

    def key_set(self):
        return {
            "generation": self.varint(), "threshold": self.take(1)[0],
            "keys": [self.take(32).hex() for _ in range(self.varint())],
        }

    def manifest(self):
        read = {name: self.text() for name in ("product", "board", "version")}
        read |= {name: self.varint() for name in ("counter", "floor", "made", "not_after")}
        read["keys"] = self.key_set() if self.take(1)[0] else None
        read["slot_bytes"] = self.varint()
        read["frames"] = [
            {"packed_bytes": self.varint(), "packed": self.take(32).hex(), "plain": self.take(32).hex()}
            for _ in range(self.varint())
        ]
        return read


# --- Ed25519, RFC 8032 section 5.1.7 --------------------------------------------------------


def point(data):
    y = int.from_bytes(data, "little")
    x = recover_x(y & (1 << 255) - 1, y >> 255)
    y &= (1 << 255) - 1
    if (-x * x + y * y - 1 - D * x * x * y * y) % P:
        raise ValueError("not on the curve")
    return (x, y, 1, x * y % P)


def is_signed(key, message, signature):
    s = int.from_bytes(signature[32:], "little")
    k = sha512_int(signature[:32], key, message)
    try:
        sides = point_mul(s, BASE), point_add(point(signature[:32]), point_mul(k, point(key)))
    except ValueError:
        return False
    return s < L and compress(sides[0]) == compress(sides[1])


# --- zstd -----------------------------------------------------------------------------------


def frame(piece):
    """A frame of a single segment; blocks of one repeated byte or as they are."""
    out = bytearray(b"\x28\xb5\x2f\xfd\xa0" + len(piece).to_bytes(4, "little"))
    blocks = [piece[at:at + (1 << 17)] for at in range(0, len(piece), 1 << 17)]
    for number, block in enumerate(blocks, 1):
        is_one = block == block[:1] * len(block)
        head = (number == len(blocks)) | is_one << 1 | len(block) << 3
        out += head.to_bytes(3, "little") + (block[:1] if is_one else block)
    return bytes(out)


def decompress(packed):
    if shutil.which("zstd") is None:
        return None
    return subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout


# --- Bundles --------------------------------------------------------------------------------


def build(case):
    slot = slot_of(case)
    pieces = [slot[at:at + PIECE] for at in range(0, len(slot), PIECE)]
    frames = [frame(piece) for piece in pieces]
    manifest = case["manifest"] | {
        "slot_bytes": len(slot),
        "frames": [
            {"packed_bytes": len(packed), "packed": sha256(packed).hex(), "plain": sha256(piece).hex()}
            for packed, piece in zip(frames, pieces)
        ],
    }
    body = MANIFEST(manifest)
    message = labelled("altnet release v1", body)
    signed = sorted((public(seed), sign(seed, message)) for seed in map(fixed, case["seeds"]))
    head = MAGIC + bytes([VERSION]) + len(body).to_bytes(4, "little") + body + bytes([len(signed)])
    return head + b"".join(key + signature for key, signature in signed) + b"".join(frames)


def slot_of(case):
    return b"".join(fixed(run["bytes"]) * run["times"] for run in case["slot"])


def verify(bundle):
    """What a bundle says, the keys that signed it, and its slot if it could be decompressed."""
    reader = Reader(bundle)
    assert reader.take(8) == MAGIC and reader.take(1)[0] == VERSION, "no bundle of this format"
    body = reader.take(int.from_bytes(reader.take(4), "little"))
    manifest = Reader(body).manifest()
    assert MANIFEST(manifest) == body, "the manifest is not in its one form"
    message = labelled("altnet release v1", body)
    signatures = [(reader.take(32), reader.take(64)) for _ in range(reader.take(1)[0])]
    keys = [key for key, _ in signatures]
    assert keys == sorted(set(keys)), "the signatures are not in order"
    signers = [key for key, signature in signatures if is_signed(key, message, signature)]
    slot = []
    for number, said in enumerate(manifest["frames"]):
        packed = reader.take(said["packed_bytes"])
        assert sha256(packed).hex() == said["packed"], f"frame {number} is damaged"
        piece = decompress(packed)
        slot.append(piece)
        assert piece is None or sha256(piece).hex() == said["plain"], f"piece {number} is another"
    assert reader.at == len(bundle), "something follows the last frame"
    return manifest, signers, None if None in slot else b"".join(slot)


def check(case):
    bundle = fixed(case["bundle"])
    if case["made_by"] == "this format's description":
        assert build(case) == bundle, "the bundle is built otherwise"
    manifest, signers, slot = verify(bundle)
    said = {name: manifest[name] for name in case["manifest"]}
    assert said == case["manifest"], f"it says {said}"
    assert signers == sorted(public(fixed(seed)) for seed in case["seeds"]), "others signed"
    assert slot in (None, slot_of(case)), "its slot is another"
    for at in (20, len(bundle) - 1):
        damaged = bytearray(bundle)
        damaged[at] ^= 1
        try:
            assert verify(bytes(damaged))[1] == [], "a change is not noticed"
        except AssertionError as error:
            assert "not noticed" not in str(error)
        except UnicodeDecodeError:
            pass
    return slot is not None


def show(path, keys):
    manifest, signers, slot = verify(pathlib.Path(path).read_bytes())
    wanted = {base64.b32decode(key.upper() + "====") for key in keys}
    print(f"{manifest['product']} {manifest['version']} for {manifest['board']}, counter {manifest['counter']}")
    print(f"signed by {len(wanted & set(signers))} of the {len(wanted)} keys given")
    print("its slot was " + ("not decompressed: there is no zstd here" if slot is None else "verified"))
    return 0 if wanted and wanted <= set(signers) else 1


def main():
    if sys.argv[2:]:
        return show(sys.argv[1], sys.argv[2:])
    cases = json.loads(VECTORS.read_text())
    if sys.argv[1:] == ["--write"]:
        for case in cases:
            if case["made_by"] == "this format's description":
                case["bundle"] = build(case).hex()
        VECTORS.write_text(json.dumps(cases, indent=1) + "\n")
    whole = [check(case) for case in cases]
    print(f"{len(cases)} bundles agree; the slots of {sum(whole)} were decompressed by zstd")
    return 0


if __name__ == "__main__":
    sys.exit(main())
