"""Two homes, a relay and the internet between them.

    client-a - gateway-a - isp-a --+                +-- isp-b - gateway-b - client-b
                                   +--- internet ---+
                                        |      |
                                      relay  owner

The gateways, the relay and the owner's computer are where our binaries run; each ISP translates
addresses by the kind of NAT it was given.
"""

from dataclasses import dataclass

from . import network
from .places import Lab, Place

RELAY = "203.0.113.10"
OWNER = "203.0.113.9"


@dataclass
class Home:
    """One home: its gateway, its ISP's translator and a computer on its LAN."""

    letter: str
    kind: str
    gateway: Place
    isp: Place
    client: Place


@dataclass
class Internet:
    """The whole topology."""

    lab: Lab
    bridge: Place
    relay: Place
    owner: Place
    a: Home
    b: Home

    @property
    def homes(self) -> tuple[Home, Home]:
        """Both homes."""
        return (self.a, self.b)


def build(lab: Lab, kind_a: str = "portcone", kind_b: str = "symmetric") -> Internet:
    """Makes every place and cable. Nothing of ours runs yet."""
    internet = lab.place("internet")
    network.forward(internet)
    network.bridge(internet, "br0")
    network.address(internet, "br0", "203.0.113.1/24")
    return Internet(
        lab, internet,
        server(lab, internet, "relay", RELAY),
        server(lab, internet, "owner", OWNER),
        _home(lab, internet, "a", 1, kind_a),
        _home(lab, internet, "b", 2, kind_b),
    )


def server(lab: Lab, internet: Place, name: str, address: str) -> Place:
    """A computer with a public address of its own."""
    place = lab.place(name)
    _plug_in(internet, place, "eth0", name, f"{address}/24")
    return place


def _home(lab: Lab, internet: Place, letter: str, index: int, kind: str) -> Home:
    isp, gateway, client = (lab.place(f"{role}-{letter}") for role in ("isp", "gateway", "client"))
    for router in (isp, gateway):
        network.forward(router)
    public = f"203.0.113.{20 + index}"
    _plug_in(internet, isp, "uplink", isp.name, f"{public}/24")

    # The access line: a documentation network when public, the carriers' own when translated.
    line = f"198.51.{100 + index}" if kind == "public" else f"100.64.{index}"
    network.cable(gateway, "wan", isp, "line")
    network.address(isp, "line", f"{line}.1/24")
    network.address(gateway, "wan", f"{line}.2/24")
    network.route_by(gateway, f"{line}.1")
    if kind == "public":
        internet.ip("route", "add", f"{line}.0/24", "via", public)
    network.translate(isp, "uplink", kind, "line", f"{line}.2")

    # The home: a bridge with one cable in it. Its IPv4 is as any router would give it by DHCP.
    lan = f"192.168.{index}"
    network.cable(gateway, "lan1", client, "eth0")
    network.bridge(gateway, "lan", "lan1")
    network.address(gateway, "lan", f"{lan}.1/24")
    network.share(gateway, "wan")
    network.address(client, "eth0", f"{lan}.2/24")
    network.route_by(client, f"{lan}.1")
    return Home(letter, kind, gateway, isp, client)


def _plug_in(internet: Place, place: Place, name: str, port: str, prefix: str) -> None:
    network.cable(place, name, internet, port)
    internet.ip("link", "set", port, "master", "br0")
    network.address(place, name, prefix)
    network.route_by(place, "203.0.113.1")
