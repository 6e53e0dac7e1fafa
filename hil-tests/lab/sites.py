"""A site beyond a provider's router, on a network with Ethernet's MTU: what goes there is forwarded by the provider, and doesn't end at it."""

import secrets

from . import network
from .altnet import PYTHON
from .places import Place, wait_for
from .providers import Provider

FAR4, FAR6 = "192.0.2.80", "2001:db8:90::80"


def beyond(provider: Provider) -> Place:
    """The computer of that site."""
    far = provider.place.lab.place("far")
    network.cable(far, "eth0", provider.place, "beyond")
    for place, name, last in ((provider.place, "beyond", "1"), (far, "eth0", "80")):
        network.address(place, name, f"192.0.2.{last}/24")
        place.ip("address", "add", f"2001:db8:90::{last}/64", "dev", name, "nodad")
    network.route_by(far, "192.0.2.1")
    far.ip("-6", "route", "add", "default", "via", "2001:db8:90::1")
    return far


def lose_too_big(provider: Provider) -> None:
    """Has nobody hear from the provider's router that a packet is too big for a line, as on much of the internet (RFC 2923)."""
    provider.place._tool("nft", "-f", "-", stdin="""
        table inet lost {
            chain output {
                type filter hook output priority filter;
                icmp type destination-unreachable icmp code frag-needed drop
                icmpv6 type packet-too-big drop
            }
        }
        """)


def serve_long(place: Place) -> str:
    """Puts a page of many segments on a computer; returns it."""
    page = secrets.token_hex(1 << 17)
    folder = place.folder / "www"
    folder.mkdir()
    (folder / "index.html").write_text(page)
    place.start(PYTHON, "-m", "http.server", "--bind", "::", "--directory", str(folder), "80", log=f"{place.name}-http.log")
    wait_for("the long page", lambda: ":80 " in place._tool("ss", "-Hltn"))
    return page

