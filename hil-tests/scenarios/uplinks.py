"""Ways to the internet beside DHCP with a delegated prefix: all of it written in the file, and SLAAC alone."""

from lab.places import Lab, wait_for
from lab.providers import LINE, PAGE, SITE6, House, Provider, addresses, link_local, prepare

from .router import BARE, DOORS

OWN4, OWN6 = "198.51.100.2", "2001:db8:1::2"
FIXED = f"""{BARE}[[router.wan]]
connection = "static"
ipv4 = {{ address = "{OWN4}/24", gateway = "198.51.100.1" }}
ipv6 = {{ address = "{OWN6}/64", gateway = "2001:db8:1::1", prefix = "2001:db8:a00::/56" }}
resolvers = ["198.51.100.53"]
"""


def a_line_with_fixed_addresses_carries_a_house() -> None:
    """With the addresses of its line in the file a house has both families, and asks the provider for nothing."""
    prepare()
    with Lab() as lab:
        provider, house = Provider(lab), House(lab, FIXED)
        provider.connect(house)
        provider.be_there()
        provider.place.ip("-6", "route", "add", "2001:db8:a00::/56", "via", OWN6, "dev", LINE)
        house.start()
        address, made = house.lease(), house.slaac("2001:db8:a00::/64")
        for family in (4, 6):
            wait_for(f"the page over IPv{family}", lambda: house.fetch(family, check=False), timeout_s=30)
        assert provider.visitors()[-2:] == [OWN4, made], provider.visitors()
        assert not any("dhcpcd" in line for line in house.children().values()), f"somebody asks on the line: {house.children()}"
        [wan] = house.ask("status")["wans"]
        assert wan["works"] and house.ask("status")["resolvers"] == ["198.51.100.53"], house.ask("status")
        for host in (OWN4, OWN6, made):
            found = provider.scan(host, *DOORS)
            assert set(found.values()) == {"silent"}, f"{host}: {found}"
        print(f"{address} is seen as {OWN4}, {made} as itself; nothing was asked for")


def a_line_that_only_advertises_gives_the_box_an_address() -> None:
    """From a provider that advertises a prefix for its line and delegates none the box has IPv6, and the house IPv4 without being told otherwise."""
    prepare()
    with Lab() as lab:
        provider, house = Provider(lab), House(lab, BARE)
        mac = provider.connect(house)
        provider.be_there()
        provider.lend()
        provider.advertise("", "AdvAutonomous on;")
        house.start()
        house.lease()
        wait_for("the page over IPv4", lambda: house.fetch(4, check=False), timeout_s=30)
        # RFC 4291 appendix A: as the link-local address, of the line's prefix.
        expected = link_local(mac).replace("fe80::", f"{provider.net6}:0:")
        own = wait_for("the box's own address", lambda: next(iter(addresses(house.router, "wan", 6)), None), timeout_s=30)
        assert own == expected, f"{own}, not {expected}"
        fetched = lambda: house.router.run("curl", "--silent", "--max-time", "5", f"http://[{SITE6}]/", check=False).stdout
        wait_for("the page over IPv6 at the box", lambda: fetched() == PAGE, timeout_s=30)
        assert provider.visitors()[-1] == own, provider.visitors()
        # Without a prefix of its own the house is offered no way of which nothing would come back (RFC 9096, RFC 7084 G-3).
        house.client.sysctl("net.ipv6.conf.eth0.accept_ra=1")
        assert not addresses(house.client, "eth0", 6), addresses(house.client, "eth0", 6)
        assert not house.client.ip("-6", "route", "show", "default"), "the house is offered a way that leads nowhere"
        found = provider.scan(own, *DOORS)
        assert set(found.values()) == {"silent"}, found
        print(f"the box has {own}, the house none")


SCENARIOS = [a_line_with_fixed_addresses_carries_a_house, a_line_that_only_advertises_gives_the_box_an_address]
