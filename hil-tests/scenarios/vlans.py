"""A cable that carries more than one network (IEEE 802.1Q)."""

from lab.altnet import PYTHON
from lab.places import Lab, Place, wait_for
from lab.providers import DHCLIENT, SITE4, House, Provider, addresses, prepare

from .router import BARE, serve

VLAN = 30
THINGS = BARE + f"""[[router.network]]
name = "lan"
[[router.network]]
name = "things"
zone = "things"
tagged = ["port:lan1"]
vlan = {VLAN}
ipv4 = "192.168.30.1/24"
dhcp = {{ first = "192.168.30.50", last = "192.168.30.99" }}
[[router.zone]]
name = "things"
to = []
services = ["dhcp"]
[[router.zone]]
name = "lan"
to = ["wan", "things"]
"""


def a_vlan_carries_a_network_of_its_own() -> None:
    """Of one cable a tagged network is apart: its machine gets an address of it, reaches nobody, and is reached from the LAN."""
    prepare()
    with Lab() as lab:
        provider, house = Provider(lab), House(lab, THINGS)
        thing = lab.place("thing")
        house.client.ip("link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", str(VLAN))
        house.client.ip("link", "set", "tagged", "netns", str(thing.pid))
        thing.ip("link", "set", "tagged", "name", "eth0")
        thing.ip("link", "set", "eth0", "up")
        provider.plug(house)
        house.start()
        own, apart = house.lease(), leased(thing)
        assert own.startswith("192.168.77."), own
        assert 50 <= int(apart.removeprefix("192.168.30.")) <= 99, apart
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        serve(house, 8080)
        there = lambda place, url: place.run("curl", "--silent", "--max-time", "3", url, check=False).stdout
        assert there(thing, f"http://{SITE4}/") == "" and there(thing, f"http://{own}:8080/") == "", "a thing opens connections"
        thing.start(PYTHON, "-m", "http.server", "8081", log="thing-http.log")
        wait_for("the thing's page", lambda: ":8081" in thing._tool("ss", "-Hltn"))
        assert there(house.client, f"http://{apart}:8081/"), "the LAN doesn't reach a thing"
        print(f"on one cable {own} is of the LAN, and {apart} of the VLAN {VLAN}")


def leased(place: Place) -> str:
    """The IPv4 address that a computer gets by ISC's dhclient."""
    place.start(
        str(DHCLIENT), "-4", "-d", "-cf", "/dev/null", "-lf", str(place.folder / "dhclient.leases"), "-pf", "/run/dhclient.pid",
        "-sf", str(DHCLIENT.with_name("dhclient-script")), "eth0", log=f"{place.name}-dhclient.log",
    )
    return wait_for(f"an IPv4 address of {place.name}", lambda: next(iter(addresses(place, "eth0", 4)), None), timeout_s=30)


SCENARIOS = []
GUEST = [a_vlan_carries_a_network_of_its_own]
