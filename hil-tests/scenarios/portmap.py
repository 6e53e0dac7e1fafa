"""A port on the ISP's router: asked of a real miniupnpd, by every protocol it speaks."""

import os
import signal
import sys
import time

from lab import captures, network
from lab.altnet import Story, altnet, path_between_homes
from lab.places import Lab, Place, wait_for
from lab.portmaps import PUBLIC, Router

PCP = ("enable_natpmp=yes", "enable_upnp=no")
IGD = ("enable_natpmp=no", "enable_upnp=yes")
PYTHON = os.path.realpath(sys.executable)
SEND = """
import socket, sys
host, port, text = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(text.encode(), (host, int(port)))
"""


def a_mapped_port_makes_the_path_direct() -> None:
    """Between two symmetric NATs the path is a relay, and direct once PCP opens a port on one's router."""
    with Lab() as lab:
        story = Story(lab, "symmetric", "symmetric")
        router = Router(story.internet, story.internet.a)
        story.tell()
        story.fetch()
        print(f"the router asked and gave nothing: {mapping(story.internet.a.gateway)['why_text']}")
        assert path_between_homes(story) == "relay"
        router.start(*PCP)
        held = wait_mapped(story.internet.a.gateway, "pcp")
        assert held["public"] and held["external"].startswith(f"{PUBLIC}:"), held
        wait_for("the path to be direct", lambda: story.fetch() and path_between_homes(story) == "direct", timeout_s=60)
        why = {peer["why_text"] for peer in altnet(story.internet.b.gateway, "peers")["peers"] if peer["name"] == "house-a"}
        print(f"house-b reaches house-a, {why}")


def a_port_comes_back_after_the_router_restarts() -> None:
    """By PCP, NAT-PMP and UPnP-IGD: a port lets the world in, is back seconds after the router lost it, and is given back at the end."""
    with Lab() as lab:
        story = Story(lab, "symmetric", "public")
        router, gateway = Router(story.internet, story.internet.a), story.internet.a.gateway
        router.start(*PCP)
        story.tell(without={"gateway-b"})
        survives(router, story, "pcp", PCP)

        # A router refuses to any other nonce what is mapped already: it has to be the one from before.
        story.stop(gateway, signal.SIGKILL)
        assert router.opens(), "the port went with altnetd"
        story.start(gateway)
        wait_for("the port to be altnetd's again", lambda: mapping(gateway)["protocol"] == "pcp", timeout_s=10)

        # A router that knows NAT-PMP alone: what begins with PCP's version does not reach it.
        router.nft('insert rule inet wall input iifname "line" udp dport 5351 @th,64,8 2 drop')
        begin_anew(story, router, *PCP)
        survives(router, story, "nat-pmp", PCP)

        begin_anew(story, router, *IGD)
        survives(router, story, "upnp-igd", IGD)
        begin_anew(story, router, *IGD, "force_igd_desc_v1=yes")
        survives(router, story, "upnp-igd", (*IGD, "force_igd_desc_v1=yes"))

        assert router.opens()
        story.stop(gateway)
        assert not router.opens(), "altnetd ended and its port is still open"


def an_ipv6_firewall_lets_the_port_through() -> None:
    """Over IPv6 nothing is translated: PCP has the router's firewall let the port through, and again after a restart."""
    with Lab() as lab:
        story = Story(lab, "symmetric", "public")
        router, gateway = Router(story.internet, story.internet.a), story.internet.a.gateway
        give_ipv6(story, router)
        router.start(*PCP)
        story.tell(without={"gateway-b"})
        survives(router, story, "pcp", PCP, family=6)
        assert mapping(gateway, 6)["external"] == mapping(gateway, 6)["internal"] == "[2001:db8:a::2]:51820"


def a_router_without_a_public_address_is_said_to_be_one() -> None:
    """A router that is itself behind a NAT gives no candidate, and status says why."""
    with Lab() as lab:
        story = Story(lab, "symmetric", "public")
        router, gateway = Router(story.internet, story.internet.a), story.internet.a.gateway
        router.isp.ip("address", "flush", "dev", "uplink")
        network.address(router.isp, "uplink", "10.9.0.2/24")
        network.address(story.internet.bridge, "br0", "10.9.0.1/24")
        network.route_by(router.isp, "10.9.0.1")
        router.start("enable_natpmp=yes", "enable_upnp=yes")
        story.tell(without={"gateway-b"})
        asked = lambda: (said := mapping(gateway))["why"] not in ("none", "asking") and said
        said = wait_for("the router to have been asked", asked, timeout_s=90)
        print(f"{said['why']}: {said['why_text']}")
        assert said["why"] in ("double-nat", "no-address") and not said["public"], said


def begin_anew(story: Story, router: Router, *settings: str) -> None:
    """Restarts the router with other settings, and the gateway, which takes it as it is now."""
    gateway = story.internet.a.gateway
    story.stop(gateway)
    router.restart(*settings)
    story.start(gateway)


def give_ipv6(story: Story, router: Router) -> None:
    """Gives home A and the owner's computer IPv6 of the internet; the home's router lets nothing in."""
    internet, gateway, owner = story.internet.bridge, story.internet.a.gateway, story.internet.owner
    for place, name, prefix in (
        (internet, "br0", "2001:db8::1/64"), (router.isp, "uplink", "2001:db8::21/64"), (owner, "eth0", "2001:db8::9/64"),
        (router.isp, "line", "2001:db8:a::1/64"), (gateway, "wan", "2001:db8:a::2/64"),
    ):
        network.address(place, name, prefix)
    internet.ip("route", "add", "2001:db8:a::/64", "via", "2001:db8::21")
    for place in (router.isp, owner):
        place.ip("route", "add", "default", "via", "2001:db8::1")
    link_local = router.isp.ip("-6", "-o", "address", "show", "dev", "line", "scope", "link").split()[3].split("/")[0]
    gateway.ip("route", "add", "default", "via", link_local, "dev", "wan")


def survives(router: Router, story: Story, protocol: str, settings: tuple[str, ...], family: int = 4) -> None:
    """The port lets the world in, and does again soon after the router lost it."""
    held = wait_mapped(story.internet.a.gateway, protocol, family)
    assert held["public"] and 0 < held["lifetime_s"] <= 7200, held
    reaches(story, held["external"], timeout_s=10)
    # An epoch of few seconds can't be told from the next one.
    wait_for("the router's clock to count", lambda: router.age_s() > 6)
    router.restart(*settings)
    taken_s = reaches(story, held["external"], timeout_s=15)
    again = wait_mapped(story.internet.a.gateway, protocol, family)
    print(f"{protocol}: {held['external']} open again {taken_s:.1f} s after a restart; {again['why_text']}")


def reaches(story: Story, external: str, timeout_s: float) -> float:
    """Sends from outside until the gateway gets it; returns how long that took."""
    gateway, sender = story.internet.a.gateway, story.internet.owner
    host, port = external.rsplit(":", 1)
    text = captures.canary()
    capture = captures.Capture(gateway, "wan", f"udp port {altnet(gateway, 'status')['listen_port']}")
    begun = time.monotonic()

    def arrives() -> bool:
        sender.run(PYTHON, "-c", SEND, host.strip("[]"), port, text)
        return capture.contains(text)

    try:
        wait_for(f"a datagram to {external} to arrive at {gateway.name}", arrives, timeout_s, every_s=0.2)
        return time.monotonic() - begun
    finally:
        capture.stop()


def wait_mapped(gateway: Place, protocol: str, family: int = 4) -> dict:
    """The gateway's mapping, once it has one by this protocol."""
    is_held = lambda: (held := mapping(gateway, family))["protocol"] == protocol and held
    # A minute's rest may go before, where the router was silent when it was asked.
    return wait_for(f"{gateway.name} to have a port by {protocol}", is_held, timeout_s=90)


def mapping(gateway: Place, family: int = 4) -> dict:
    """What a gateway says of the router before it."""
    found = [one for one in altnet(gateway, "status")["port_mappings"] if (":" in one["router"]) == (family == 6)]
    return found[0] if found else {"protocol": None, "why": "none", "why_text": "no router yet"}


SCENARIOS = [a_mapped_port_makes_the_path_direct, a_port_comes_back_after_the_router_restarts, an_ipv6_firewall_lets_the_port_through,
             a_router_without_a_public_address_is_said_to_be_one]
