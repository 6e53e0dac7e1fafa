"""The time, which the box has from the provider's chronyd, and the house from the box."""

import json
import time

from lab import network
from lab.clocks import Clock, TimeServer, running_s
from lab.places import Lab, Place, wait_for
from lab.providers import SITE, House, Provider, addresses, prepare

from .outages import clock as calendar

TIMED = '[router]\n[router.ntp]\nservers = ["{server}"]\n'
LAN4, LAN6, HOUSE6 = "192.168.77.1", "2001:db8:a00::1", "2001:db8:a00::/64"
TODAY = 1_796_000_000.0
AHEAD_DAYS = 30


def a_box_that_begins_in_1970_has_the_time_and_gives_it() -> None:
    """A box that begins in 1970 finds its server by name and sets its clock, years ahead; then another program has the time of it from the LAN over both families, which had none before, and outside nobody has."""
    prepare()
    with Clock() as clock, Lab() as lab:
        provider, house = Provider(lab), House(lab, TIMED.format(server=SITE))
        clock.begin_in_1970()
        assert time.gmtime().tm_year == 1970
        server = TimeServer(provider, TODAY)
        # As on the box: who is asked for names is known by what the router writes.
        house.router.run("ln", "-sf", "/run/altnet-router/resolv.conf", "/etc/resolv.conf")
        # Not by DHCP, whose leases would be over when the years have passed.
        network.address(house.client, "eth0", "192.168.77.9/24")
        mac = provider.connect(house)
        house.start()
        wait_for("the box to answer that it has no time", lambda: "Response dropped" in asked(house.client, LAN4)[1])
        provider.serve(mac)
        provider.answer_names()
        server.serves()
        began = running_s()
        wait_for("the box to have the time", lambda: abs(time.time() - server.now()) < 1, timeout_s=120)
        took = running_s() - began
        house.slaac(HOUSE6)
        for address in (LAN4, LAN6):
            given = wait_for(f"the time from {address}", lambda: asked(house.client, address)[0])
            assert given["stratum"] == 2 and abs(given["offset"] + AHEAD_DAYS * 86400) < 1, given
        assert abs(time.time() - server.now()) < 1
        outside = next(iter(addresses(house.router, "wan", 4)))
        assert provider.scan(outside, 123, by="udp") == {"123": "silent"}, "who is outside is given the time"
        print(f"it is {time.strftime('%Y', time.gmtime())} {took:.0f} s after there was a line; a machine that is {AHEAD_DAYS} days ahead is told so over both families")


def asked(place: Place, server: str) -> tuple[dict | None, str]:
    """What a machine that is ahead is told by a server, by ntpsec's client; nothing if no time comes. And what the client says of that."""
    done = place.run("ntpdig", "--json", "--timeout=2", server, check=False, env=calendar(f"+{AHEAD_DAYS}d"))
    return json.loads(done.stdout) if done.stdout.startswith("{") else None, done.stderr


SCENARIOS = []
GUEST = [a_box_that_begins_in_1970_has_the_time_and_gives_it]
