#!/usr/bin/env python3
"""Rebuilds the pairings of firmware/altnet-claim/tests/pairing.json, byte by byte, on both sides.

    ci/vectors/claim.py            checks the vectors
    ci/vectors/claim.py --write    makes the vectors anew from their codes, keys and seeds

Written from ADR 0028 alone, with Python's standard library: the code's check, SPAKE2 in the Ed25519 group as
magic-wormhole has it, the confirmations, and Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s (Noise revision 34, RFC 7748,
RFC 8439). Exit 0 if all agrees, 1 if not.
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys

from records import BASE, L, P, compress, point_add, point_mul, recover_x

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "firmware/altnet-claim/tests/pairing.json"
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LABEL = b"altnet claim 1"
NOISE = b"Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s"


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf(salt, key, info, length):
    """RFC 5869 with SHA-256."""
    inner, out, block = hmac.digest(salt, key, "sha256"), b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(inner, block + info + bytes([number]), "sha256")
        out += block
    return out[:length]


# --- The code -------------------------------------------------------------------------------


def doubled(element):
    return (element << 1) ^ (0b100101 if element & 16 else 0)


def code(chance):
    symbols = [octet & 31 for octet in chance]
    check = 0
    for symbol in symbols:
        check = doubled(check) ^ symbol
    return "".join(SYMBOLS[symbol] for symbol in [*symbols, doubled(check)])


# --- Chance from a seed -----------------------------------------------------------------------


def chance(seed, label, length):
    key, out = hkdf(bytes(32), seed, label, 32), b""
    for drawn in range(-(-length // 32)):
        out += hkdf(bytes(32), key, struct.pack(">I", drawn), min(32, length - len(out)))
    return out


# --- SPAKE2 -----------------------------------------------------------------------------------


def point(data):
    number = int.from_bytes(data, "little")
    y = number & (1 << 255) - 1
    x = recover_x(y, number >> 255)
    return (x, y, 1, x * y % P)


def negative(p):
    return (P - p[0], p[1], p[2], P - p[3])


M = point(bytes.fromhex("15cfd18e385952982b6a8f8c7854963b58e34388c8e6dae891db756481a02312"))
N = point(bytes.fromhex("f04f2e7eb734b2a8f8b472eaf9c3c632576ac64aea650b496a8a20ff00e583c3"))


class Spake2:
    def __init__(self, is_computer, password, box_key, seed):
        self.is_computer, self.password = is_computer, password
        self.names = LABEL + b" computer", LABEL + b" box" + box_key
        self.secret = int.from_bytes(hkdf(b"", password, b"SPAKE2 pw", 48), "big") % L
        self.x = int.from_bytes(chance(seed, b"spake2", 64), "little") % L
        blinding = point_mul(self.secret, M if is_computer else N)
        self.own = compress(point_add(point_mul(self.x, BASE), blinding))
        self.message = (b"A" if is_computer else b"B") + self.own

    def key(self, message):
        assert message[:1] == (b"B" if self.is_computer else b"A")
        blinding = negative(point_mul(self.secret, N if self.is_computer else M))
        shared = compress(point_mul(self.x, point_add(point(message[1:]), blinding)))
        both = (self.own, message[1:]) if self.is_computer else (message[1:], self.own)
        return sha256(sha256(self.password), *map(sha256, self.names), *both, shared)


# --- Noise ------------------------------------------------------------------------------------


def x25519(secret, public):
    """RFC 7748 section 5."""
    k = int.from_bytes(secret, "little") & (1 << 255) - 8 | 1 << 254
    k &= (1 << 255) - 1
    u = int.from_bytes(public, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(secret):
    return x25519(secret, (9).to_bytes(32, "little"))


def rotated(word, by):
    return (word << by | word >> 32 - by) & 0xFFFFFFFF


def chacha(key, counter, nonce):
    """RFC 8439 section 2.3."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    s = list(start)
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(10):
        for a, b, c, d in columns:
            for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                s[x] = (s[x] + s[y]) & 0xFFFFFFFF
                s[z] = rotated(s[z] ^ s[x], by)
    return struct.pack("<16I", *((one + two) & 0xFFFFFFFF for one, two in zip(s, start)))


def seal(key, number, associated, plain):
    """RFC 8439 section 2.8, with Noise's nonce."""
    nonce = bytes(4) + struct.pack("<Q", number)
    stream = b"".join(chacha(key, 1 + block, nonce) for block in range(-(-len(plain) // 64)))
    text = bytes(one ^ two for one, two in zip(plain, stream))
    padded = lambda data: data + bytes(-len(data) % 16)
    data = padded(associated) + padded(text) + struct.pack("<QQ", len(associated), len(text))
    once = chacha(key, 0, nonce)[:32]
    r, total = int.from_bytes(once[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF, 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at:at + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    tag = (total + int.from_bytes(once[16:], "little")) & (1 << 128) - 1
    return text + tag.to_bytes(16, "little")


def blake2s(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


class Noise:
    """A handshake's symmetric state (Noise section 5.2)."""

    def __init__(self, prologue, box_key):
        self.chaining = self.hash = blake2s(NOISE)
        self.mix_hash(prologue)
        self.mix_hash(box_key)

    def mix_hash(self, data):
        self.hash = blake2s(self.hash, data)

    def expanded(self, data, count):
        inner, out, block = hmac.digest(self.chaining, data, hashlib.blake2s), [], b""
        for number in range(1, count + 1):
            block = hmac.digest(inner, block + bytes([number]), hashlib.blake2s)
            out.append(block)
        return out

    def mix_key(self, data):
        self.chaining, self.key = self.expanded(data, 2)

    def mix_key_and_hash(self, data):
        self.chaining, mixed, self.key = self.expanded(data, 3)
        self.mix_hash(mixed)

    def tag(self):
        sealed = seal(self.key, 0, self.hash, b"")
        self.mix_hash(sealed)
        return sealed


# --- A pairing --------------------------------------------------------------------------------


def pairing(case):
    """All that follows from a code, a key, seeds and the rest of hello."""
    given = {name: bytes.fromhex(case[name]) for name in ("chance", "box_secret", "computer_seed", "box_seed", "hello_rest", "plain")}
    password = code(given["chance"]).encode()
    box_key = public(given["box_secret"])
    hello = bytes([1, 0]) + box_key + given["hello_rest"]
    computer = Spake2(True, password, box_key, given["computer_seed"])
    box = Spake2(False, password, box_key, given["box_seed"])
    key = computer.key(box.message)
    assert key == box.key(computer.message), "the two sides don't agree"
    transcript = sha256(LABEL, hello, computer.message, box.message)
    keys = hkdf(transcript, key, LABEL + b" keys", 96)
    one, two = (chance(given[seed], b"noise", 32) for seed in ("computer_seed", "box_seed"))
    noise = Noise(LABEL + transcript, box_key)
    noise.mix_key_and_hash(keys[64:])
    for data in (public(one), None, public(two)):
        if data is None:
            noise.mix_key(x25519(one, box_key))
            first = public(one) + noise.tag()
            continue
        noise.mix_hash(data)
        noise.mix_key(data)
    noise.mix_key(x25519(two, public(one)))
    second = public(two) + noise.tag()
    sending = noise.expanded(b"", 2)[0]
    return {
        "code": password.decode()[:5] + "-" + password.decode()[5:],
        "fingerprint": "-".join(sha256(LABEL, b" fingerprint", box_key).hex()[at:at + 4] for at in range(0, 20, 4)),
        "hello": hello.hex(), "a": computer.message.hex(), "b": box.message.hex(),
        "proof": (hmac.digest(keys[:32], transcript, "sha256") + first).hex(),
        "answer": (hmac.digest(keys[32:64], transcript, "sha256") + second).hex(),
        "sealed": [seal(sending, number, b"", given["plain"]).hex() for number in range(2)],
    }


def main():
    cases = json.loads(VECTORS.read_text())
    if sys.argv[1:] == ["--write"]:
        VECTORS.write_text(json.dumps([{**case, **pairing(case)} for case in cases], indent=1) + "\n")
        return 0
    for case in cases:
        for name, value in pairing(case).items():
            assert case[name] == value, f"{name} is {value}"
    print(f"{len(cases)} pairings agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
