"""A line that is dialed, by PPP over Ethernet, with other people's access concentrator at the other end."""

import json
import time

from lab.concentrators import PASSWORD, USER, Concentrator
from lab.places import Lab, wait_for
from lab.providers import House, addresses, prepare
from lab.sites import FAR4, FAR6, beyond, lose_too_big, serve_long

from .lans import switch
from .router import BARE

DIALED = BARE + f'[[router.wan]]\nconnection = "pppoe"\npppoe = {{{{ username = "{USER}", password = "{{password}}" }}}}\n'
WRONG = "incorrect horse 8"
HOUSE6 = "2001:db8:a00::/64"
# The router finds out by itself: that takes four echoes of 15 s (LCP, RFC 1661 section 5.8).
NOTICES_S = 90


def a_house_dials_in() -> None:
    """By PPPoE a house has IPv4 by PPP and IPv6 by a prefix that is delegated over it; long pages cross though the provider tells nobody what is too big for its line."""
    prepare()
    with Lab() as lab:
        provider, house = dialing(lab, PASSWORD)
        provider.carry()
        address, made = house.lease(), house.slaac(HOUSE6)
        for family in (4, 6):
            wait_for(f"the page over IPv{family}", lambda: house.fetch(family, check=False), timeout_s=60)
        [outside] = addresses(house.router, "ppp-wan", 4)
        assert outside.startswith(f"{provider.net4}."), outside
        assert provider.visitors()[-2:] == [outside, made], provider.visitors()
        assert not addresses(house.router, "wan", 4) and not addresses(house.router, "wan", 6), "the line itself has an address"
        assert f"{provider.net4}.53" in house.ask("status")["resolvers"], "who is to be asked for names isn't known"
        print(f"{address} is seen as {outside}, {made} as itself")

        page, sites = serve_long(beyond(provider)), (FAR4, f"[{FAR6}]")
        lose_too_big(provider)
        for site in sites:
            got = long_page(house, site, 60)
            assert got == page, f"{len(got)} of {len(page)} bytes came from {site}"
        # What makes them cross is that both ends are told how long a segment may be.
        house.router.run("nft", "flush", "chain", "inet", "altnet_router", "segments")
        assert house.fetch(4) and house.fetch(6)
        for site in sites:
            assert len(long_page(house, site, 5)) < len(page), f"the line to {site} takes what is too big for it"
        print(f"a page of {len(page)} bytes crosses over both families, and over none where segments are left as long as they are")


def a_refused_login_is_said() -> None:
    """With a wrong password a house has no line and the router says why; with the right one it has, and neither of them is told to anybody."""
    prepare()
    with Lab() as lab:
        provider, house = dialing(lab, WRONG)
        refused = "the WAN wan has no session: the provider refused the user name or the password"
        wait_for("the router to say why", lambda: refused in house.ask("status")["troubles"], timeout_s=60)
        assert not house.ask("status")["wans"][0]["works"]
        house.lease()
        assert not house.fetch(4, check=False)
        switch(house, DIALED.format(password=PASSWORD))
        provider.carry()
        house.slaac(HOUSE6)
        for family in (4, 6):
            wait_for(f"the page over IPv{family}", lambda: house.fetch(family, check=False), timeout_s=60)
        status = untroubled(house)
        assert status["wans"][0]["works"], status
        said = house.log() + json.dumps([status, house.ask("plan")])
        assert WRONG not in said and PASSWORD not in said, "a password is told"
        print(f"said of a wrong password: {refused}")


def a_session_that_broke_off_is_dialed_anew() -> None:
    """When the access concentrator is gone without a word the router notices and says so, and once it is back the house is online by itself."""
    prepare()
    with Lab() as lab:
        provider, house = dialing(lab, PASSWORD)
        provider.carry()
        house.lease()
        house.slaac(HOUSE6)
        online = lambda: all(house.fetch(family, check=False) for family in (4, 6))
        wait_for("both pages", online, timeout_s=60)
        provider.vanish()
        began = time.monotonic()
        works = lambda: house.ask("status")["wans"][0]["works"]
        wait_for("the router to notice", lambda: not works(), NOTICES_S, every_s=1)
        noticed = time.monotonic() - began
        silent = "the WAN wan has no session: nobody answers to PPPoE on its line"
        wait_for("the router to say so", lambda: silent in house.ask("status")["troubles"], timeout_s=60)
        provider.answer()
        began = time.monotonic()
        provider.carry()
        wait_for("both pages", online, timeout_s=120)
        assert untroubled(house)["wans"][0]["works"]
        print(f"noticed after {noticed:.0f} s; online {time.monotonic() - began:.0f} s after the provider was back")


def dialing(lab: Lab, password: str) -> tuple[Concentrator, House]:
    """A house that dials with this password, and whom it dials."""
    provider, house = Concentrator(lab), House(lab, DIALED.format(password=password))
    provider.plug(house)
    house.start()
    return provider, house


def untroubled(house: House) -> dict:
    """The router's status, once there is nothing in it that doesn't work."""
    is_well = lambda: (status := house.ask("status"))["troubles"] == [] and status
    return wait_for("the router to be without troubles", is_well)


def long_page(house: House, site: str, longest_s: int) -> str:
    """As much of a site's page as comes to the client in this time."""
    return house.client.run("curl", "--silent", "--fail", "--max-time", str(longest_s), f"http://{site}/", check=False, timeout_s=longest_s + 30).stdout


SCENARIOS = []
GUEST = [a_house_dials_in, a_refused_login_is_said, a_session_that_broke_off_is_dialed_anew]
