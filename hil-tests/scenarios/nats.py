"""The lab itself: a NAT that is not what it is called would make every other scenario a lie."""

import ctypes
import ipaddress
import os
import socket
import struct
import subprocess
import sys

from lab import captures, clients, homes, network
from lab.places import Lab

# Run in a place by this interpreter: what a socket's address looks like from two ports of one
# host, and whether an answer from a third port, which was never written to, comes through.
SERVER = """
import select, socket
ports = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
for port, number in zip(ports, (7001, 7002, 7003)): port.bind(("0.0.0.0", number))
print("listening", flush=True)
while True:
    for port in select.select(ports[:2], [], [])[0]:
        asked, source = port.recvfrom(64)
        (ports[2] if asked == b"elsewhere" else port).sendto(f"{source[0]}:{source[1]}".encode(), source)
"""
PROBE = """
import socket, sys
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.bind(("0.0.0.0", 40000))
probe.settimeout(2)
def ask(port, word):
    probe.sendto(word, ("{relay}", port))
    try: return probe.recv(64).decode()
    except TimeoutError: return "none"
print(ask(7001, b"here"), ask(7002, b"here"), ask(7001, b"elsewhere"))
"""


def nats_are_what_they_are_called() -> None:
    """Mapping and filtering of each NAT kind, measured from a home's gateway (RFC 4787)."""
    python = os.path.realpath(sys.executable)
    for first, second in (("public", "fullcone"), ("portcone", "symmetric")):
        with Lab() as lab:
            internet = homes.build(lab, first, second)
            server = lab._spawn([*internet.relay.enter(), python, "-c", SERVER], stdout=subprocess.PIPE)
            assert server.stdout.readline() == b"listening\n"
            for home in internet.homes:
                said = home.gateway.run(python, "-c", PROBE.replace("{relay}", homes.RELAY)).stdout.split()
                seen = (said[0] == said[1], said[2] != "none")
                expected = {"public": (True, True), "fullcone": (True, True), "portcone": (True, False), "symmetric": (False, False)}
                assert seen == expected[home.kind], f"{home.kind}: one mapping, lets strangers in = {seen} by {said}"
                print(f"{home.kind:10} seen from two ports as {said[0]}, {said[1]}; a third port's answer: {said[2]}")


def clients_take_what_routers_advertise() -> None:
    """Kernel SLAAC and an unmodified rdnssd give a client its address and resolver; captures see it."""
    with Lab() as lab:
        internet = homes.build(lab)
        client, gateway = internet.a.client, internet.a.gateway
        clients.listen_for_advertisements(client)
        capture = captures.Capture(client, "eth0", "icmp6")
        network.address(gateway, "lan", "fd00:1:2:3::1/64")
        advertise(gateway.pid, ipaddress.IPv6Address("fd00:1:2:3::"), ipaddress.IPv6Address("fd00:1:2:3::1"))
        address, resolver = clients.address(client), clients.resolver(client)
        capture.stop()
        print(f"{client.name} is {address} and asks {resolver}")
        assert address.startswith("fd00:1:2:3:") and resolver == "fd00:1:2:3::1"
        assert sum(1 for _ in capture.frames()) > 0, "the capture saw no advertisement"
        left = lab.dir
    assert not left.exists(), "the lab left its folder behind"


def advertise(gateway: int, prefix: ipaddress.IPv6Address, resolver: ipaddress.IPv6Address) -> None:
    """Sends one router advertisement (RFC 4861 4.2) with a prefix and a resolver on `lan`."""
    header = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    prefix_option = struct.pack(">BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, prefix.packed)
    resolver_option = struct.pack(">BBHI16s", 25, 3, 0, 3600, resolver.packed)
    child = os.fork()
    if child == 0:
        with open(f"/proc/{gateway}/ns/net") as namespace:
            if ctypes.CDLL(None).setns(namespace.fileno(), 0):
                os._exit(1)
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.sendto(header + prefix_option + resolver_option, ("ff02::1", 0, 0, socket.if_nametoindex("lan")))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the advertisement could not be sent"


SCENARIOS = [nats_are_what_they_are_called, clients_take_what_routers_advertise]
