"""Cables, bridges, addresses and NATs between places."""

import array
import ctypes
import fcntl
import os
import socket
import struct

from .places import LabError, Place

# linux/if_tun.h, linux/sched.h
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TUN, IFF_TAP, IFF_NO_PI = 0x0001, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000

# The translations a home may sit behind, by the names RFC 4787 leads to.
#   public      no translation: the gateway's address is reachable
#   fullcone    endpoint-independent mapping and filtering
#   portcone    endpoint-independent mapping in practice, address- and port-dependent filtering
#   symmetric   address- and port-dependent mapping with random ports
KINDS = ("public", "fullcone", "portcone", "symmetric")


def cable(one: Place, name_one: str, other: Place, name_other: str) -> None:
    """Joins two places by a veth pair without offloads, so that captures show real packets."""
    one._tool("ip", "link", "add", name_one, "type", "veth", "peer", "name", name_other, "netns", str(other.pid))
    for place, name in ((one, name_one), (other, name_other)):
        place._tool("ethtool", "-K", name, "tso", "off", "gso", "off", "gro", "off", "tx", "off")
        place.ip("link", "set", name, "up")


def tun(place: Place, name: str) -> int:
    """Makes a device of packets in a place, and returns its other end."""
    return _device(place, name, IFF_TUN)


def tap(place: Place, name: str) -> int:
    """Puts a cable of frames into an interface of a place, which stays when it is pulled out, and returns its other end."""
    return _device(place, name, IFF_TAP)


def _device(place: Place, name: str, kind: int) -> int:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    child = os.fork()
    if child == 0:
        try:
            with open(f"/proc/{place.pid}/ns/net") as namespace:
                if ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET):
                    os._exit(1)
            device = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), kind | IFF_NO_PI))
            if kind == IFF_TAP:
                fcntl.ioctl(device, TUNSETPERSIST, 1)
            theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise LabError(f"{place.name}: no device {name} can be made by /dev/net/tun")
    _, ancillary, *_ = mine.recvmsg(1, socket.CMSG_SPACE(4))
    mine.close()
    theirs.close()
    return struct.unpack("i", ancillary[0][2][:4])[0]


def bridge(place: Place, name: str, *ports: str) -> None:
    """Makes a bridge of interfaces that are already there; it forwards at once."""
    place.ip("link", "add", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    place.ip("link", "set", name, "up")
    for port in ports:
        place.ip("link", "set", port, "master", name)


def address(place: Place, name: str, prefix: str) -> None:
    """Gives an interface an address."""
    place.ip("address", "add", prefix, "dev", name)


def route_by(place: Place, gateway: str) -> None:
    """Sets the IPv4 default route."""
    place.ip("route", "replace", "default", "via", gateway)


def forward(place: Place) -> None:
    """Makes a place a router, as its operating system would."""
    place.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def share(place: Place, outside: str) -> None:
    """Lets a home's LAN out over IPv4 as any router does, and leaves the router itself open."""
    place._tool("nft", "-f", "-", stdin=f"""
        table ip nat {{
            chain post {{ type nat hook postrouting priority srcnat; oifname "{outside}" masquerade; }}
        }}
        """)


def block_udp(place: Place, interface: str) -> None:
    """Lets nothing through an interface by UDP, either way: a network that lets nothing but TCP pass."""
    _drop(place, "no_udp", interface, "meta l4proto udp")


def let_udp_through(place: Place) -> None:
    """Undoes `block_udp`."""
    place._tool("nft", "delete", "table", "inet", "no_udp")


def block(place: Place, interface: str) -> None:
    """Lets nothing through an interface, either way, though it has a carrier."""
    _drop(place, "nothing", interface, "")


def unblock(place: Place) -> None:
    """Undoes `block`."""
    place._tool("nft", "delete", "table", "inet", "nothing")


def _drop(place: Place, table: str, interface: str, what: str) -> None:
    place._tool("nft", "-f", "-", stdin=f"""
        table inet {table} {{
            chain in {{ type filter hook input priority 0; iifname "{interface}" {what} drop; }}
            chain out {{ type filter hook output priority 0; oifname "{interface}" {what} drop; }}
        }}
        """)


def translate(place: Place, outside: str, kind: str, inside: str, host: str) -> None:
    """Puts a NAT of `kind` on a router, between the interfaces `inside` and `outside`."""
    if kind not in KINDS:
        raise LabError(f"there is no NAT kind {kind}; there are {', '.join(KINDS)}")
    translation = {
        "public": "",
        "fullcone": f"""
            add rule ip nat pre iifname "{outside}" meta l4proto udp udp dport 1024-65535 dnat to {host}
            add rule ip nat post oifname "{outside}" masquerade
            insert rule inet wall forward iifname "{outside}" meta l4proto udp accept""",
        "portcone": f'add rule ip nat post oifname "{outside}" masquerade',
        "symmetric": f'add rule ip nat post oifname "{outside}" masquerade random,fully-random',
    }[kind]
    # The input drop matters: an unsolicited packet must leave no conntrack entry, which would take
    # the port and turn a later mapping into another.
    wall = "" if kind == "public" else f"""
        add rule inet wall forward ct state established,related accept
        add rule inet wall forward iifname "{inside}" accept
        add rule inet wall forward drop
        add rule inet wall input iifname "{outside}" ct state new meta l4proto {{ udp, tcp }} drop"""
    place._tool("nft", "-f", "-", stdin=f"""
        table ip nat {{
            chain pre {{ type nat hook prerouting priority dstnat; }}
            chain post {{ type nat hook postrouting priority srcnat; }}
        }}
        table inet wall {{
            chain forward {{ type filter hook forward priority 0; }}
            chain input {{ type filter hook input priority 0; }}
        }}
        {wall}
        {translation}
        """)
