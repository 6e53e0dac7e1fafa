"""A site beyond a provider's router, on a network with Ethernet's MTU: what goes there is forwarded by the provider, and doesn't end at it."""

from . import network
from .places import Place
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
