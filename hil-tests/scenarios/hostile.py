"""A member that is hostile: home A's keys, a WireGuard of its own, and packets as it likes.

Nothing reaches home B that its policy does not allow. After each attempt something that is allowed
is sent behind it on the same wire; once that has come, the attempt was judged.
"""

import base64
import ipaddress
import shutil
import struct
from contextlib import contextmanager
from typing import Iterator

from lab import captures, clients
from lab.altnet import PYTHON, Story, altnet
from lab.places import Lab, LabError, wait_for
from scenarios.interop import OURS

# Home B behind a public address, as a hostile member would wish it.
GATEWAY_B = "198.51.102.2:51820"
TCP, UDP, ROUTING, FRAGMENT, OPTIONS, HOP_BY_HOP, ICMPV6 = 6, 17, 43, 44, 60, 0, 58
WEB = 80

# Sends packets, one a line in hexadecimal, with whatever source they have.
SENDER = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
for line in sys.stdin:
    packet = bytes.fromhex(line)
    s.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0, 0, 0))
"""


class Hostile:
    """Whoever has home A's keys."""

    def __init__(self, story: Story):
        self.story, self.place = story, story.internet.a.gateway
        status = altnet(story.internet.b.gateway, "status")["network"]
        self.prefix = ipaddress.ip_network(status["prefix"])
        key = base64.b64encode(base64.b32decode(status["tunnel_key"].upper() + "====")).decode()
        self.wiki = ipaddress.ip_address(clients.address(story.internet.b.client))
        self.laptop = ipaddress.ip_address(clients.address(story.internet.a.client))
        self.router = self.lan(2, 1)
        story.stop(self.place)
        driver = self.place.start(str(OURS), "evil0", "51820", "@/var/lib/altnet", key, "-", GATEWAY_B, log="hostile.log")
        log = story.lab.dir / "hostile.log"
        wait_for("the hostile member's WireGuard", lambda: driver.poll() is not None or "ready" in log.read_text())
        if driver.poll() is not None:
            raise LabError(f"it ended: {log.read_text()}")
        self.place.ip("link", "set", "evil0", "mtu", "1420", "up")
        self.place.ip("-6", "route", "replace", str(self.prefix), "dev", "evil0")
        self.place.ip("-6", "route", "replace", "2001:db8::/32", "dev", "evil0")
        self.capture = captures.Capture(story.internet.b.client, "eth0", "ip6")
        self._sent = 0

    def lan(self, site: int, host: int) -> ipaddress.IPv6Address:
        """A machine's address in a site."""
        return self.prefix.network_address + (site << 64) + host

    def send(self, *packets: bytes) -> None:
        """Seals packets and sends them to home B."""
        self.place.run(PYTHON, "-c", SENDER, stdin="".join(packet.hex() + "\n" for packet in packets))

    def allowed(self, text: str) -> bytes:
        """A packet that policy allows."""
        return ipv6(self.laptop, self.wiki, TCP, syn(self.laptop, self.wiki, 40000 + self._sent, WEB, text))

    def nothing_comes_of(self, what: str, *packets: bytes) -> None:
        """Sends packets that hold the word `hostile`, and sees that none of them comes to home B's LAN."""
        for packet in packets:
            self.send(packet)
        self._sent += 1
        behind = f"behind{self._sent:04}"
        for _ in range(50):
            self.send(self.allowed(behind))
            try:
                wait_for("what is allowed to come", lambda: self.capture.contains(behind), timeout_s=1)
                break
            except LabError:
                continue  # the first packet may have made the session
        else:
            raise LabError(f"what is allowed does not come\n{(self.story.lab.dir / 'hostile.log').read_text()[-2000:]}")
        assert not self.capture.contains("hostile"), f"{what}: it was delivered"
        print(f"{what}: {len(packets)} sent, none delivered")


@contextmanager
def hostile() -> Iterator[Hostile]:
    """Two homes, and somebody who has the keys of one."""
    with Lab() as lab:
        story = Story(lab, "portcone", "public")
        story.tell()
        story.fetch()
        yield Hostile(story)


def hostile_spoofs_sources() -> None:
    """Another site's prefix, home B's own, a relay's, a stranger's: refused, for the key that sealed it is another's."""
    with hostile() as it:
        relay = ipaddress.ip_address(altnet(it.story.internet.relay, "status")["network"]["address"])
        sources = [it.lan(3, 9), it.lan(2, 9), it.router, it.wiki, relay, ipaddress.ip_address("2001:db8::9")]
        it.nothing_comes_of("spoofed sources", *(
            ipv6(source, it.wiki, TCP, syn(source, it.wiki, 40000, WEB, "hostile")) for source in sources
        ))


def hostile_scans_the_lan() -> None:
    """Other ports of the wiki, machines without a name, the router and its services: refused."""
    with hostile() as it:
        ports = [ipv6(it.laptop, it.wiki, TCP, syn(it.laptop, it.wiki, 41000, port, "hostile")) for port in (22, 79, 81, 443, 8080)]
        datagrams = [ipv6(it.laptop, it.wiki, UDP, udp(it.laptop, it.wiki, 41000, port, "hostile")) for port in (53, 80, 5353)]
        others = [ipv6(it.laptop, to, TCP, syn(it.laptop, to, 41000, WEB, "hostile")) for to in (it.lan(2, host) for host in range(1, 40))]
        everybody = ipaddress.ip_address("ff02::1")
        multicast = ipv6(it.laptop, everybody, UDP, udp(it.laptop, everybody, 41000, 5353, "hostile"))
        it.nothing_comes_of("a scan", *ports, *datagrams, *others, multicast)
        assert not answers(it, it.router, 53), "home B's router answers a member that no rule allows"


def hostile_sends_fragments() -> None:
    """Later fragments of nothing, of what was refused, and over what was allowed: refused."""
    with hostile() as it:
        segment = syn(it.laptop, it.wiki, 42000, WEB, "x" * 20)
        refused = syn(it.laptop, it.wiki, 42000, 81, "hostile-hostile-hostile")
        tail = b"hostile-hostile-"
        it.nothing_comes_of("a later fragment of nothing", fragment(it, TCP, 1, 48, False, tail))
        it.nothing_comes_of("what was refused", fragment(it, TCP, 2, 0, True, padded(refused)), fragment(it, TCP, 2, 48, False, tail))
        it.nothing_comes_of(
            "over what was allowed",
            fragment(it, TCP, 3, 0, True, padded(segment)), fragment(it, TCP, 3, 8, False, tail), fragment(it, TCP, 3, 0, True, padded(refused)),
            fragment(it, TCP, 3, 48, False, tail),
        )
        it.nothing_comes_of("a first one too short", fragment(it, TCP, 4, 0, True, segment[:16]), fragment(it, TCP, 4, 16, False, tail))


def hostile_hides_behind_headers() -> None:
    """Options, routing headers and headers that nobody knows hide no port."""
    with hostile() as it:
        refused = syn(it.laptop, it.wiki, 43000, 81, "hostile")
        allowed = syn(it.laptop, it.wiki, 43000, WEB, "hostile")
        padding = bytes([0, 1, 4, 0, 0, 0, 0])
        route = bytes([2, 0, 1, 0, 0, 0, 0]) + it.lan(2, 9).packed
        it.nothing_comes_of(
            "extension headers",
            ipv6(it.laptop, it.wiki, HOP_BY_HOP, bytes([TCP]) + padding + refused),
            ipv6(it.laptop, it.wiki, OPTIONS, bytes([TCP]) + padding + refused),
            ipv6(it.laptop, it.wiki, ROUTING, bytes([TCP]) + route + allowed),
            ipv6(it.laptop, it.wiki, 253, bytes([TCP]) + padding + allowed),
            ipv6(it.laptop, it.wiki, OPTIONS, (bytes([OPTIONS]) + padding) * 20 + bytes([TCP]) + padding + allowed),
        )


def hostile_tells_lies_by_icmp() -> None:
    """Errors about nothing, echo replies and neighbor discovery that nobody asked for: refused."""
    with hostile() as it:
        quoted = ipv6(it.wiki, it.laptop, UDP, udp(it.wiki, it.laptop, 5000, 53, "hostile"))
        advertisement = bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8) + b"hostile"
        bodies = [
            bytes([1, 4, 0, 0, 0, 0, 0, 0]) + quoted, bytes([2, 0, 0, 0, 0, 0, 5, 0]) + quoted,
            bytes([129, 0, 0, 0, 0, 7, 0, 1]) + b"hostile", advertisement, bytes([137, 0, 0, 0]) + bytes(36) + b"hostile",
        ]
        it.nothing_comes_of("ICMPv6", *(ipv6(it.laptop, it.wiki, ICMPV6, checked(it.laptop, it.wiki, ICMPV6, body)) for body in bodies))


def hostile_brings_old_records() -> None:
    """A member that was put back to an older policy and head takes nobody else back, and learns the newer ones."""
    with Lab() as lab:
        story = Story(lab, "portcone", "public")
        story.tell()
        story.fetch()
        a, b = story.internet.a.gateway, story.internet.b.gateway
        then = serial(b)
        story.stop(a)
        shutil.copytree(a.path("/var/lib/altnet"), lab.dir / "then")
        closed = "[[rules]]\nname = \"ping-alone\"\nfrom = [\"members\"]\nto = [\"host:wiki\"]\nservices = [\"ping\"]\n"
        (story.internet.owner.folder / "closed.toml").write_text(closed)
        story.internet.owner.run("altnet-provision", "policy", "publish", "closed.toml", "--yes")
        wait_for("home B to have the newer policy", lambda: serial(b) > then)
        shutil.rmtree(a.path("/var/lib/altnet"))
        shutil.copytree(lab.dir / "then", a.path("/var/lib/altnet"))
        story.start(a)
        wait_for("home A to learn the newer policy", lambda: serial(a) == serial(b))
        assert serial(b) > then, "home B went back to an older policy"
        client = story.internet.a.client
        page = client.run("curl", "-6", "--silent", "--max-time", "3", story.url(), check=False)
        assert page.returncode in (7, 28), f"the page came although no rule allows it: {page.stdout}"


def serial(place) -> int:
    """The number of the policy in force at a place."""
    return altnet(place, "policy", "show")["serial"]


def answers(it: Hostile, to: ipaddress.IPv6Address, port: int) -> bool:
    """Whether a connection of the hostile member's own is taken."""
    it.place.ip("-6", "address", "replace", f"{it.laptop}/128", "dev", "lo")
    program = f"import socket; socket.create_connection(({str(to)!r}, {port}), 2, source_address=({str(it.laptop)!r}, 0))"
    return it.place.run(PYTHON, "-c", program, check=False).returncode == 0


def ipv6(source, destination, following: int, payload: bytes) -> bytes:
    """An IPv6 packet (RFC 8200 section 3)."""
    return struct.pack(">IHBB", 6 << 28, len(payload), following, 64) + source.packed + destination.packed + payload


def checked(source, destination, protocol: int, message: bytes, at: int = 2) -> bytes:
    """A message with its checksum (RFC 8200 section 8.1) at an offset."""
    message = message[:at] + b"\0\0" + message[at + 2 :]
    whole = source.packed + destination.packed + struct.pack(">II", len(message), protocol) + message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f">{len(whole) // 2}H", whole))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:at] + struct.pack(">H", ~total & 0xFFFF) + message[at + 2 :]


def syn(source, destination, port: int, to: int, text: str) -> bytes:
    """A TCP segment that begins a connection and brings a text with it."""
    return checked(source, destination, TCP, struct.pack(">HHIIBBHHH", port, to, 1, 0, 5 << 4, 2, 1024, 0, 0) + text.encode(), 16)


def udp(source, destination, port: int, to: int, text: str) -> bytes:
    """A UDP datagram."""
    return checked(source, destination, UDP, struct.pack(">HHHH", port, to, 8 + len(text), 0) + text.encode(), 6)


def padded(segment: bytes) -> bytes:
    """As much of a segment as six units of eight bytes hold."""
    return segment.ljust(48, b"\0")[:48]


def fragment(it: Hostile, protocol: int, number: int, offset: int, more: bool, payload: bytes) -> bytes:
    """A fragment from home A's laptop to the wiki (RFC 8200 section 4.5)."""
    return ipv6(it.laptop, it.wiki, FRAGMENT, struct.pack(">BBHI", protocol, 0, offset | more, number) + payload)


SCENARIOS = [
    hostile_spoofs_sources, hostile_scans_the_lan, hostile_sends_fragments, hostile_hides_behind_headers, hostile_tells_lies_by_icmp,
    hostile_brings_old_records,
]
