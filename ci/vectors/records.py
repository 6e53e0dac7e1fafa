#!/usr/bin/env python3
"""Rebuilds every record of firmware/altnet-core/tests/vectors.json from its inputs.

Written from the description of the protocol alone, with Python's standard library: what the
Rust code and this file agree on is the format. Exit 0 if all bytes are equal, 1 if not.
Ed25519 follows RFC 8032 section 5.1; it is slow and not constant-time, which is fine here.
"""

import hashlib
import ipaddress
import json
import pathlib
import sys

VECTORS = (
    pathlib.Path(__file__).resolve().parents[2]
    / "firmware/altnet-core/tests/vectors.json"
)

# --- Ed25519, RFC 8032 section 5.1 ---------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
GY = 4 * pow(5, P - 2, P) % P


def recover_x(y, sign):
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 != sign else x


GX = recover_x(GY, 0)
BASE = (GX, GY, 1, GX * GY % P)


def point_add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_mul(s, p):
    q = (0, 1, 1, 0)
    while s:
        if s & 1:
            q = point_add(q, p)
        p = point_add(p, p)
        s >>= 1
    return q


def compress(p):
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def expand(seed):
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little")
    return (a & (1 << 254) - 8) | 1 << 254, h[32:]


def public(seed):
    return compress(point_mul(expand(seed)[0], BASE))


def sha512_int(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L


def sign(seed, message):
    a, prefix = expand(seed)
    key = compress(point_mul(a, BASE))
    r = sha512_int(prefix, message)
    point = compress(point_mul(r, BASE))
    s = (r + sha512_int(point, key, message) * a) % L
    return point + s.to_bytes(32, "little")


# --- The one hash: BLAKE2s-256 under a label -----------------------------------------------


def labelled(label, *parts):
    text = label.encode()
    return hashlib.blake2s(bytes([len(text)]) + text + b"".join(parts)).digest()


# --- postcard: what each kind of field looks like on the wire ------------------------------


def counted(value):
    return varint(len(value) // 2) + fixed(value)


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def fixed(value):
    return bytes.fromhex(value)


def text(value):
    return varint(len(value.encode())) + value.encode()


def optional(one):
    return lambda value: b"\0" if value is None else b"\1" + one(value)


def many(one):
    return lambda values: varint(len(values)) + b"".join(map(one, values))


def group(*shape):
    return lambda value: b"".join(one(value[name]) for name, one in shape)


def ipv6(value):
    return ipaddress.IPv6Address(value).packed


def zigzag(value):
    return varint(value * 2 if value >= 0 else -value * 2 - 1)


def run(one):
    """Values one after the other, as one string of bytes."""
    def write(values):
        inside = b"".join(map(one, values))
        return varint(len(inside)) + inside
    return write


def boolean(value):
    return bytes([value])


def pair(first, second):
    return lambda value: first(value[0]) + second(value[1])


def endpoint(value):
    host, port = value.rsplit(":", 1)
    address = ipaddress.ip_address(host.strip("[]"))
    return bytes([address.version == 6]) + address.packed + varint(int(port))


TARGETS = ["member", "device", "issuer", "invite"]


def target(value):
    ((kind, subject),) = value.items()
    return varint(TARGETS.index(kind)) + fixed(subject)


ATOMS = [
    ("members", None), ("person", text), ("group", text), ("device", fixed), ("site", varint),
    ("host", pair(varint, text)), ("app", pair(fixed, text)), ("hosts", None), ("apps", None),
    ("anything", None), ("named", text),
]


def atom(value):
    kind, inside = (value, None) if isinstance(value, str) else next(iter(value.items()))
    number, write = next((n, w) for n, (name, w) in enumerate(ATOMS) if name == kind)
    return varint(number) + (write(inside) if write else b"")


def byte(value):
    return bytes([value])


SWITCH = group(("month", byte), ("week", byte), ("weekday", byte), ("minute", zigzag))
SUMMER = group(("offset_min", zigzag), ("begins", SWITCH), ("ends", SWITCH))
SPAN = group(("days", byte), ("opens_min", varint), ("closes_min", varint))
SERVICE = group(("protocol", optional(byte)), ("first_port", varint), ("last_port", varint))
RULE = group(
    ("name", varint), ("from", run(varint)), ("to", run(varint)), ("services", run(SERVICE)),
    ("window", optional(byte)), ("needs_fresh_head", boolean))
# What a policy has since version 2.
POLICY_2 = [
    ("vouchers", run(group(("at", varint), ("who", varint)))),
    ("sponsors", run(group(
        ("who", varint), ("most", varint), ("depth", byte), ("groups", run(varint))))),
]
EPOCH = group(("epoch", varint), ("key", fixed))
REDEMPTION = group(("invite", fixed), ("session", fixed), ("proof", fixed))

# Kind: its number, and its body's fields in order.
KINDS = {
    "genesis": (1, [
        ("name", text), ("owners", many(fixed)), ("recovery", fixed), ("issued", varint),
        ("nonce", fixed),
    ]),
    "owner-change": (2, [
        ("previous", fixed), ("owners", many(fixed)), ("recovery", fixed), ("issued", varint),
    ]),
    "issuer-certificate": (3, [
        ("issuer", fixed), ("rights", varint), ("roles", varint), ("first_site", varint),
        ("last_site", varint), ("issued", varint), ("expires", varint),
    ]),
    "membership": (4, [
        ("member", fixed), ("name", text), ("person", optional(text)), ("device", fixed),
        ("roles", varint), ("site", optional(varint)), ("groups", many(text)),
        ("sponsor", optional(fixed)), ("invite", optional(REDEMPTION)), ("issued", varint),
        ("expires", varint), ("replaces", optional(fixed)),
    ]),
    "node": (5, [
        ("control", fixed), ("tunnel", EPOCH), ("previous_tunnel", optional(EPOCH)),
        ("home_relays", many(ipv6)), ("fixed_endpoints", many(endpoint)),
    ]),
    "host": (6, [("name", text), ("site", varint), ("address", optional(ipv6))]),
    "app": (7, [
        ("name", text), ("app", fixed), ("tunnel", optional(EPOCH)), ("binding", fixed),
    ]),
    "policy": (8, [
        ("issued", varint), ("zone", group(("offset_min", zigzag), ("summer", optional(SUMMER)))),
        ("stale_after_s", varint), ("atoms", run(atom)), ("names", run(text)),
        ("sites", run(pair(varint, varint))),
        ("windows", run(group(("spans", many(SPAN)), ("open_without_clock", boolean)))),
        ("groups", run(group(("atom", varint), ("group", varint)))),
        ("profiles", run(group(
            ("group", varint), ("exclusive", boolean), ("window", optional(byte))))),
        ("rules", run(RULE)),
    ]),
    "revocation": (9, [("target", target), ("issued", varint), ("reason", text)]),
    "invite": (10, [
        ("invite", fixed), ("issuer", fixed), ("name", optional(text)),
        ("person", optional(text)), ("roles", varint), ("site", optional(varint)),
        ("groups", many(text)), ("sponsor", optional(fixed)), ("uses", varint),
        ("issued", varint), ("expires", varint),
    ]),
    "network-head": (11, [
        ("revocations", fixed), ("revocation_count", varint), ("policy", fixed),
        ("policy_serial", varint), ("owner_serial", varint), ("issued", varint),
    ]),
    "tls-authority": (16, [("issued", varint), ("expires", varint), ("certificate", counted)]),
    "tls-request": (17, [("app", optional(fixed)), ("key", fixed), ("proof", fixed)]),
    "tls-certificate": (18, [
        ("subject", fixed), ("request", varint), ("authority", fixed), ("expires", varint),
        ("certificate", counted),
    ]),
    "derp": (19, [("key", fixed)]),
}


def record(case):
    number, shape = KINDS[case["kind"]]
    if (case["kind"], case["version"]) == ("policy", 2):
        shape = shape + POLICY_2
    body = group(*shape)(case["body"])
    seed = fixed(case["seed"])
    before = (
        fixed(case["network"]) + varint(number) + bytes([case["version"]]) + public(seed)
        + varint(case["serial"]) + varint(len(body)) + body
    )
    return before + sign(seed, labelled("altnet record v1", before))


# --- Addresses, RFC 4193 -------------------------------------------------------------------


def derived(label, network, key):
    tail = bytearray(labelled(label, network, key)[:10])
    tail[0] |= 0x80
    return str(ipaddress.IPv6Address(b"\xfd" + network[:5] + bytes(tail)))


def addresses(network, given):
    site = b"\xfd" + network[:5] + given["site"].to_bytes(2, "big")
    lan = ipaddress.IPv6Network((site + bytes(8), 64))
    return {
        "prefix": str(lan.supernet(new_prefix=48)),
        "site": given["site"],
        "site_prefix": str(lan),
        "site_gateway": str(lan[1]),
        "device": given["device"],
        "node_address": derived("altnet node address v1", network, fixed(given["device"])),
        "app": given["app"],
        "app_address": derived("altnet app address v1", network, fixed(given["app"])),
    }


def signatures_inside(case, network):
    """The signatures in a body, made from the keys that the vectors use for them."""
    body, device = case["body"], None
    if case["kind"] == "membership" and body["invite"]:
        device = fixed(body["device"])
        seed = labelled("altnet invite key v1", bytes([9] * 16))
        session = fixed(body["invite"]["session"])
        yield body["invite"]["proof"], sign(
            seed, labelled("altnet redemption v1", session, device))
    if case["kind"] == "app":
        device, app = public(fixed(case["seed"])), fixed(body["app"])
        yield body["binding"], sign(
            bytes([50] * 32), labelled("altnet app binding v1", network, app, device))


def main():
    vectors = json.loads(VECTORS.read_text())
    network = fixed(vectors["network"])
    wrong = []

    def check(what, found, expected):
        if found != expected:
            wrong.append(f"{what}:\n  expected {expected}\n  found    {found}")

    for index, case in enumerate(vectors["records"]):
        what = f"record {index} ({case['kind']})"
        made = record(case)
        check(what, made.hex(), case["bytes"])
        check(f"{what} id", labelled("altnet record id v1", made).hex(), case["id"])
        if case["kind"] == "tls-authority":
            authority = labelled("altnet tls authority v1", fixed(case["body"]["certificate"]))
        if case["kind"] == "tls-certificate":
            check(f"{what} authority", authority.hex(), case["body"]["authority"])
        for given, signature in signatures_inside(case, network):
            check(f"{what} signature inside", signature.hex(), given)
        if case["kind"] == "genesis":
            check("network id", labelled("altnet network id v1", made), network)
    check("addresses", addresses(network, vectors["addresses"]), vectors["addresses"])
    invite = vectors["invite_key"]
    seed = labelled("altnet invite key v1", fixed(invite["secret"]))
    check("invite key", public(seed).hex(), invite["public"])
    given = vectors["redemption_session"]
    session = labelled(
        "altnet redemption session v1", fixed(given["handshake"]), fixed(given["control"]))
    check("redemption session", session.hex(), given["session"])

    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(vectors['records'])} records and their addresses agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
