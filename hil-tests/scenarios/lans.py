"""What the house's side is given: addresses, names of resolvers, and ports that machines open; judged by clients of other people's."""

import ipaddress
import re

from lab import clients, network
from lab.altnet import TARGET
from lab.places import Lab, Place, wait_for
from lab.providers import DHCLIENT, DHCPCD, House, Provider, addresses, prepare

from .router import BARE, serve

# The last is the box's own for good, whatever providers delegate.
LAN4, LAN6, ULA = "192.168.77.1", "2001:db8:a00::/64", "fd00:77::1"
WRITTEN = BARE + """[[router.network]]
name = "lan"
domain = "house.example"
address6 = "{ula}/64"
[[router.host]]
name = "desk"
mac = "{mac}"
ipv4 = "192.168.77.10"
suffix = "::10"
"""
# What machines count on a prefix at most, in seconds: ND_VALID_LIMIT (RFC 9096 section 3.4).
VALID_LIMIT_S = 5400
UPNPC = TARGET / "ci-tools/miniupnpc"
# miniupnpd takes no address for documentation for one of the internet, so this provider has another.
NUMBER = 2
OPENED = 8080


def a_computer_has_the_addresses_that_are_written_for_it() -> None:
    """ISC's client gets the IPv4 and IPv6 addresses of its entry, dhcpcd on another port others, and both what goes with them."""
    prepare()
    with Lab() as lab:
        provider, house = Provider(lab), House(lab)
        other = lab.place("other")
        network.cable(house.router, "lan2", other, "eth0")
        house.ports["lan"].append("lan2")
        house.config.write_text(WRITTEN.format(mac=clients.mac(house.client), ula=ULA))
        provider.plug(house)
        house.start()
        assert house.lease() == "192.168.77.10"
        told_of(house.client, "dhclient.leases", f"routers {LAN4}", f"domain-name-servers {LAN4}", 'domain-name "house.example"')

        made = house.slaac(LAN6)
        entry = addresses(house.client, "eth0", 6)[made]
        assert entry["valid_life_time"] <= VALID_LIMIT_S, f"{made} is valid for {entry['valid_life_time']} s"
        lent = {"2001:db8:a00::10", "fd00:77::10"}
        by_dhcpv6(house.client, lent)
        told_of(house.client, "dhclient6.leases", f"dhcp6.name-servers {ULA}", 'dhcp6.domain-search "house.example."')

        found = by_dhcpcd(other)
        ranged = [ip for ip in found[4] if ipaddress.ip_address(ip) in ipaddress.ip_network("192.168.77.0/24")]
        assert ranged and ranged != ["192.168.77.10"], found
        assert not {made, *lent} & set(found[6]), found
        for family in (4, 6):
            wait_for(f"the page over IPv{family}", lambda: house.fetch(family, check=False), timeout_s=30)
        print(f"desk has 192.168.77.10, {made} and {' and '.join(sorted(lent))}; the other one {', '.join(found[4] + found[6])}")


def machines_open_ports_only_where_they_may() -> None:
    """By default nobody listens to UPnP; switched on, miniupnp's client opens a port to itself and to nobody else, until it is switched off."""
    prepare()
    with Lab() as lab:
        provider, house = Provider(lab, number=NUMBER), House(lab, BARE)
        provider.plug(house)
        house.start()
        own = house.lease()
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        outside = next(iter(addresses(house.router, "wan", 4)))
        serve(house, OPENED)
        asks = Asks(house.client)
        assert "No IGD" in asks("-l"), "somebody listens to UPnP, and nobody switched it on"
        assert not asks.opens(own, OPENED) and provider.scan(outside, str(OPENED)) == {str(OPENED): "silent"}

        config = f"{BARE}[router.upnp]\nenabled = true\n"
        switch(house, config)
        wait_for("miniupnpd to be found", lambda: f"ExternalIPAddress = {outside}" in asks("-l"), timeout_s=30)
        assert asks.opens(own, OPENED), asks.said
        assert provider.scan(outside, str(OPENED), "8081") == {str(OPENED): "open", "8081": "silent"}
        assert not asks.opens("192.168.77.99", 8081), "a port was opened to another machine"
        assert not asks.opens(own, 22), "a port below 1024 was opened"
        asks("-d", str(OPENED), "TCP")
        assert provider.scan(outside, str(OPENED)) == {str(OPENED): "silent"}, "the port stayed open"
        assert asks.opens(own, OPENED) and provider.scan(outside, str(OPENED)) == {str(OPENED): "open"}
        found = provider.scan(outside, "5000", "1900", "5351", by="udp") | provider.scan(outside, "5000")
        assert set(found.values()) == {"silent"}, f"outside hears of it: {found}"

        switch(house, BARE)
        wait_for("the port to be shut", lambda: provider.scan(outside, str(OPENED)) == {str(OPENED): "silent"})
        wait_for("nobody to listen", lambda: "No IGD" in asks("-l"))
        print(f"{own} opened {outside}:{OPENED} to itself, and it is shut now that machines may no more")


class Asks:
    """A machine that asks by UPnP, with miniupnp's client; called with its words it returns what that said."""

    def __init__(self, place: Place):
        self.place, self.said = place, ""
        place.ip("route", "replace", "239.0.0.0/8", "dev", "eth0")

    def __call__(self, *words: str) -> str:
        [library] = UPNPC.glob("usr/lib/*/")
        done = self.place.run(str(UPNPC / "usr/bin/upnpc"), "-m", "eth0", *words, check=False, env={"LD_LIBRARY_PATH": str(library)})
        self.said = done.stdout + done.stderr
        return self.said

    def opens(self, to: str, port: int) -> bool:
        """Whether a TCP port of the WAN leads to a machine now, as far as the router says so."""
        return bool(re.search(rf"external \S+:{port} TCP is redirected to internal {re.escape(to)}:{port}", self("-a", to, str(port), str(port), "TCP")))


def switch(house: House, config: str) -> None:
    """Has another file be the one in force."""
    house.apply(config)
    house.ask("confirm")


def told_of(client: Place, file: str, *options: str) -> None:
    """Holds a lease of ISC's dhclient to name these options, once it is written."""
    lease = client.folder / file
    wait_for(f"{file} to be written", lambda: lease.exists() and "}" in lease.read_text())
    missing = [option for option in options if f"option {option};" not in lease.read_text()]
    assert not missing, f"{missing} are not in\n{lease.read_text()}"


def by_dhcpv6(client: Place, expected: set[str]) -> None:
    """Holds ISC's dhclient to be lent these addresses by DHCPv6."""
    client.start(
        str(DHCLIENT), "-6", "-d", "-cf", "/dev/null", "-lf", str(client.folder / "dhclient6.leases"), "-pf", "/run/dhclient6.pid",
        "-sf", str(DHCLIENT.with_name("dhclient-script")), "eth0", log=f"{client.name}-dhclient6.log",
    )
    wait_for(f"{' and '.join(sorted(expected))} by DHCPv6", lambda: expected <= set(addresses(client, "eth0", 6)), timeout_s=30)


def by_dhcpcd(client: Place) -> dict[int, list[str]]:
    """The addresses of both families that dhcpcd gets, by DHCP, DHCPv6 and SLAAC, by family."""
    client.path("/var/lib/dhcpcd").mkdir(exist_ok=True)
    client.start(str(DHCPCD / "dhcpcd"), "--nobackground", "--config", "/dev/null", "--script", "/bin/true", "eth0", log=f"{client.name}-dhcpcd.log")
    found = lambda: {family: list(addresses(client, "eth0", family)) for family in (4, 6)}

    def all_came() -> dict | None:
        now = found()
        # One that it made itself, and one that it was lent.
        return now if now[4] and len(now[6]) >= 2 else None

    return wait_for("dhcpcd's addresses", all_came, timeout_s=40)


SCENARIOS = [a_computer_has_the_addresses_that_are_written_for_it, machines_open_ports_only_where_they_may]
