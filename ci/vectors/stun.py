#!/usr/bin/env python3
"""Rebuilds every message of firmware/altnet-wire/tests/stun.json from its inputs.

Written from RFC 8489 and RFC 8656 alone, with Python's standard library, and first held to the
vectors that RFC 5769 and RFC 8489 publish. Exit 0 if all bytes are equal, 1 if not.
"""

import hashlib
import hmac
import ipaddress
import json
import pathlib
import struct
import sys
import zlib

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "firmware/altnet-wire/tests/stun.json"

COOKIE = 0x2112A442
CLASSES = {"request": 0b00, "indication": 0b01, "success": 0b10, "error": 0b11}
MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES, XOR_PEER_ADDRESS, DATA = 0x08, 0x09, 0x0A, 0x12, 0x13
REALM, NONCE, USERNAME, XOR_MAPPED_ADDRESS, PASSWORD_ALGORITHM, USERHASH = 0x14, 0x15, 0x06, 0x20, 0x1D, 0x1E
MESSAGE_INTEGRITY_SHA256, SOFTWARE, FINGERPRINT = 0x1C, 0x8022, 0x8028


def message_type(kind, method):
    """RFC 8489 section 5, figure 3: the bits from the highest are M11..M7 C1 M6..M4 C0 M3..M0."""
    bits = f"{method:012b}"
    high, low = f"{CLASSES[kind]:02b}"
    return int("00" + bits[:5] + high + bits[5:8] + low + bits[8:], 2)


def address(text):
    """An address and port as written by people, in bytes."""
    host, port = text.rsplit(":", 1)
    return ipaddress.ip_address(host.strip("[]")).packed, int(port)


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


class Message:
    """A message that grows at its end (section 14)."""

    def __init__(self, kind, method, transaction, filler=b"\0"):
        self.head, self.body = struct.pack(">H", message_type(kind, method)), b""
        self.mask, self.filler = struct.pack(">I", COOKIE) + transaction, filler

    def bytes(self, more=0):
        """All of it, with a header that counts `more` bytes that are still to come."""
        return self.head + struct.pack(">H", len(self.body) + more) + self.mask + self.body

    def value(self, kind, value):
        self.body += struct.pack(">HH", kind, len(value)) + value + self.filler * (-len(value) % 4)

    def number(self, kind, number):
        self.value(kind, struct.pack(">I", number))

    def plain(self, kind, text):
        ip, port = address(text)
        self.value(kind, struct.pack(">BBH", 0, 1 if len(ip) == 4 else 2, port) + ip)

    def xor(self, kind, text):
        ip, port = address(text)
        family = 1 if len(ip) == 4 else 2
        self.value(kind, struct.pack(">BBH", 0, family, port ^ COOKIE >> 16) + xor(ip, self.mask))

    def error(self, code, reason):
        self.value(ERROR_CODE, struct.pack(">HBB", 0, code // 100, code % 100) + reason.encode())

    def unknown(self, kinds):
        self.value(UNKNOWN_ATTRIBUTES, b"".join(struct.pack(">H", kind) for kind in kinds))

    def sha1(self, key):
        self.value(MESSAGE_INTEGRITY, hmac.digest(bytes.fromhex(key), self.bytes(24), "sha1"))

    def sha256(self, key):
        self.value(MESSAGE_INTEGRITY_SHA256, hmac.digest(bytes.fromhex(key), self.bytes(36), "sha256"))

    def fingerprint(self):
        self.number(FINGERPRINT, zlib.crc32(self.bytes(8)) ^ 0x5354554E)


def published():
    """Our reading of the RFCs against the bytes that they print: name, made, printed."""
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    password = b"VOkJxbRl1RmTxUk/WvJxBt".hex()
    response = Message("success", 1, transaction, filler=b" ")
    response.value(SOFTWARE, b"test vector")
    response.xor(XOR_MAPPED_ADDRESS, "192.0.2.1:32853")
    response.sha1(password)
    response.fingerprint()
    yield "RFC 5769 section 2.2", response.bytes(), (
        "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
        "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96")
    response = Message("success", 1, transaction, filler=b" ")
    response.value(SOFTWARE, b"test vector")
    response.xor(XOR_MAPPED_ADDRESS, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")
    response.sha1(password)
    response.fingerprint()
    yield "RFC 5769 section 2.3", response.bytes(), (
        "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
        "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c")
    transaction = bytes.fromhex("78ad3433c6ad72c029da412e")
    user = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    credentials = f"{user}:example.org:TheMatrIX".encode()
    request = Message("request", 1, transaction)
    request.value(USERNAME, user.encode())
    request.value(NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
    request.value(REALM, b"example.org")
    request.sha1(hashlib.md5(credentials).hexdigest())
    yield "RFC 5769 section 2.4", request.bytes(), (
        "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c"
        "662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014"
        "f67024656dd64a3e02b8e0712e85c9a28ca89666")
    request = Message("request", 1, transaction)
    request.value(USERHASH, hashlib.sha256(f"{user}:example.org".encode()).digest())
    request.value(NONCE, b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA")
    request.value(REALM, b"example.org")
    request.value(PASSWORD_ALGORITHM, bytes([0, 2, 0, 0]))
    request.sha256(hashlib.sha256(credentials).hexdigest())
    yield "RFC 8489 appendix B.1", request.bytes(), (
        "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b2"
        "05c46e41407f1704001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c3946535476"
        "7936347341000000" "0014000b6578616d706c652e6f726700001d000400020000001c0020b5c7bf005b6c52a21c51"
        "c5e892f81924136296cb927c43149309278cc6518e65")


def made(case):
    """A case's message, from its inputs."""
    message = Message(case["class"], case["method"], bytes.fromhex(case["transaction"]))
    for how, *what in case["attributes"]:
        if how == "value":
            what[1] = bytes.fromhex(what[1])
        getattr(message, how)(*what)
    return message.bytes()


def main():
    vectors = json.loads(VECTORS.read_text())
    wrong = []

    def check(what, found, expected):
        if found.hex() != expected:
            wrong.append(f"{what}:\n  expected {expected}\n  found    {found.hex()}")

    for name, bytes_, printed in published():
        check(name, bytes_, printed)
    for index, case in enumerate(vectors["messages"]):
        check(f"message {index}", made(case), case["bytes"])
    for index, case in enumerate(vectors["carried"]):
        data = bytes.fromhex(case["data"])
        check(f"channel data {index}", struct.pack(">HH", case["channel"], len(data)) + data, case["channel_data"])
        send = Message("indication", 6, b"twelve bytes")
        send.xor(XOR_PEER_ADDRESS, case["peer"])
        send.value(DATA, data)
        check(f"send {index}", send.bytes(), case["send"])
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(vectors['messages'])} messages and {len(vectors['carried'])} carried datagrams agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
