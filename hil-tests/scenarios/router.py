"""The router of a house, between a provider and a computer that are others' work."""

import time

from lab.altnet import PYTHON
from lab.places import Lab, wait_for
from lab.providers import SITE4, House, Provider, addresses, prepare

# Doors that a router might leave open: shell, names, the page, others' daemons, the tunnel's neighbours.
DOORS = (21, 22, 23, 53, 67, 80, 123, 443, 546, 547, 853, 1900, 5351, 5353, 7547, 8000, 8080, 9586, 49152, 51820)
BARE = "[router]\n[router.ntp]\nservers = []\nserve = false\n"
FORWARD = BARE + '[[router.forward]]\nport = 8080\nto = "{client}"\n'
# Good as a file, and the end of the house's way out.
CUT_OFF = BARE + '[[router.network]]\nname = "lan"\nipv4 = "10.99.0.1/24"\nipv6 = false\n[[router.zone]]\nname = "lan"\nto = []\n'
PROBED = f'[router.wan.probes]\ntargets = ["{SITE4}"]\ninterval_s = 1\n'
TWO_LINES = f'{BARE}[[router.wan]]\nname = "fibre"\n{PROBED}[[router.wan]]\nname = "cable"\ninterface = "wan2"\n{PROBED}'
TRIAL_S = 90


def a_house_gets_an_internet() -> None:
    """By DHCP and a delegated prefix a house has both families, and nothing comes in but what a forward opens."""
    prepare()
    with Lab() as lab:
        provider, house = housed(lab, BARE)
        address, made = house.lease(), house.slaac("2001:db8:a00::/64")
        for family in (4, 6):
            wait_for(f"the page over IPv{family}", lambda: house.fetch(family, check=False), timeout_s=30)
        outside = next(iter(addresses(house.router, "wan", 4)))
        assert provider.visitors()[-2:] == [outside, made], provider.visitors()
        print(f"{address} is seen as {outside}, {made} as itself")

        serve(house, 8080)
        for host in (outside, next(iter(addresses(house.router, "wan", 6))), made):
            for by in ("tcp", "udp"):
                found = provider.scan(host, *DOORS, by=by)
                assert set(found.values()) == {"silent"}, f"{host} by {by}: {found}"
        assert not house.client.run("curl", "--silent", "--fail", "--max-time", "5", f"http://{outside}:8080/", check=False).stdout
        house.apply(FORWARD.format(client=address))
        house.ask("confirm")
        found = provider.scan(outside, *DOORS)
        assert {port for port, how in found.items() if how == "open"} == {"8080"}, found
        assert set(found.values()) == {"open", "silent"}, found
        print(f"of {len(DOORS)} ports at 3 addresses none answers by TCP or UDP; with a forward, 8080 alone")
        assert house.client.run("curl", "--silent", "--fail", "--max-time", "5", f"http://{outside}:8080/").stdout == "inside"


def a_file_that_cuts_off_is_taken_back() -> None:
    """A file that takes the house's internet away is gone after 90 s, or at the next start, and the one before counts again."""
    prepare()
    with Lab() as lab:
        _, house = housed(lab, BARE)
        address = house.lease()
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        before = house.ask("plan")

        house.apply(CUT_OFF)
        began = time.monotonic()
        assert not house.fetch(4, check=False)
        assert not house.ask("apply", "new.toml", check=False), "a second trial at once"
        wait_for("the file to be taken back", lambda: house.ask("status")["trial_left_s"] is None, timeout_s=TRIAL_S + 10, every_s=1)
        took = time.monotonic() - began
        house.lease()
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        print(f"taken back by itself after {took:.0f} s")
        assert same(house.ask("plan"), before)
        assert house.config.read_text() == BARE and not house.config.with_name("altnet.toml.trial").exists()

        house.apply(CUT_OFF)
        assert house.config.with_name("altnet.toml.trial").exists()
        left = house.settled()
        house.kill()
        assert set(house.children()) == left, "what serves the house went with the router"
        house.start()
        assert not left & set(house.children())
        assert not house.config.with_name("altnet.toml.trial").exists()
        assert house.lease() == address
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        assert "never confirmed" in house.log()

        house.apply(CUT_OFF)
        house.ask("revert")
        house.lease()
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        refused(house, '[router]\n[[router.network]]\nname = "lan"\nipv4 = "10.0.0.1/33"\n', "ipv4")
        refused(house, "listen_port = 51820\n", "[router]")


def what_somebody_takes_away_is_put_back() -> None:
    """Another program removes the router's address in the house, then all of its routes: each time the house is served again by itself."""
    prepare()
    with Lab() as lab:
        _, house = housed(lab, BARE)
        house.lease()
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        [lan] = addresses(house.router, "br-lan", 4)
        for words in (("address", "flush", "dev", "br-lan", "to", lan), ("route", "flush", "table", "all", "proto", "177")):
            house.router.ip(*words)
            began = time.monotonic()
            wait_for(f"the page after ip {' '.join(words)}", lambda: house.fetch(4, check=False), timeout_s=30)
            assert lan in addresses(house.router, "br-lan", 4)
            print(f"ip {' '.join(words)}: served again after {time.monotonic() - began:.1f} s")


def a_prefix_that_changed_is_deprecated() -> None:
    """After a reboot into another prefix the old one is advertised as deprecated, and computers use the new one."""
    prepare()
    with Lab() as lab:
        provider, house = housed(lab, BARE)
        old = house.slaac("2001:db8:a00::/64")
        wait_for("the page", lambda: house.fetch(6, check=False), timeout_s=30)

        house.cut_power()
        provider.delegate("2001:db8:b00::/56")
        house.start()
        new = house.slaac("2001:db8:b00::/64")
        deprecated = wait_for("the old address to be deprecated", lambda: addresses(house.client, "eth0", 6).get(old, {}).get("deprecated"))
        assert deprecated and not addresses(house.client, "eth0", 6)[new].get("deprecated")
        wait_for("the page", lambda: house.fetch(6, check=False), timeout_s=30)
        assert provider.visitors()[-1] == new, provider.visitors()
        stale = next(entry for ip, entry in addresses(house.router, "br-lan", 6).items() if ip.startswith("2001:db8:a00:"))
        assert stale["preferred_life_time"] == 0 and 7000 < stale["valid_life_time"] <= 7200, stale
        print(f"{old} is deprecated, {new} is used; the old one goes in {stale['valid_life_time']} s")


def the_second_line_takes_over() -> None:
    """When nobody answers beyond the first line, though it is up, the second one carries the house, and the first again when it is back."""
    prepare()
    with Lab() as lab:
        house = House(lab, TWO_LINES)
        fibre, cable = Provider(lab), Provider(lab, "second", number=2, prefix="2001:db8:c00::/56")
        fibre.plug(house)
        cable.plug(house, "wan2")
        house.start()
        house.lease()

        def carried_by(provider: Provider) -> bool:
            before = len(provider.visitors())
            return house.fetch(4, check=False) and len(provider.visitors()) > before

        def works() -> dict:
            return {wan["name"]: wan["works"] for wan in house.ask("status")["wans"]}

        wait_for("both lines", lambda: works() == {"fibre": True, "cable": True} and carried_by(fibre), timeout_s=30)
        fibre.reach_the_site(False)
        began = time.monotonic()
        wait_for("the second line to carry the house", lambda: carried_by(cable), timeout_s=30)
        took = time.monotonic() - began
        assert works() == {"fibre": False, "cable": True}
        fibre.reach_the_site()
        wait_for("the first line to carry the house again", lambda: carried_by(fibre), timeout_s=30)
        assert works() == {"fibre": True, "cable": True}
        print(f"the second line carried the house {took:.1f} s after the first led nowhere")


def housed(lab: Lab, config: str) -> tuple[Provider, House]:
    """A house on a provider's line, with its router running."""
    provider, house = Provider(lab), House(lab, config)
    provider.plug(house)
    house.start()
    return provider, house


def serve(house: House, port: int) -> None:
    """Puts a page on the client, on every address."""
    folder = house.client.folder / "www"
    folder.mkdir()
    (folder / "index.html").write_text("inside")
    house.client.start(PYTHON, "-m", "http.server", "--bind", "::", "--directory", str(folder), str(port), log="client-http.log")
    wait_for("the client's page", lambda: f":{port}" in house.client._tool("ss", "-Hltn"))


def refused(house: House, config: str, word: str) -> None:
    """Holds a file to be refused with an error that says `word`, and nothing to change."""
    (house.router.folder / "new.toml").write_text(config)
    done = house.router.run("altnet-routerd", "apply", "new.toml", check=False)
    assert done.returncode == 1 and word in done.stderr, done.stderr
    assert house.ask("status")["trial_left_s"] is None


def same(one: dict, other: dict) -> bool:
    """Whether two plans are the same but for lifetimes, which go on."""

    def still(value):
        if isinstance(value, dict):
            return {key: still(part) for key, part in value.items() if not key.endswith("_until_s")}
        return [still(part) for part in value] if isinstance(value, list) else value

    return still(one) == still(other)


SCENARIOS = [a_house_gets_an_internet, a_file_that_cuts_off_is_taken_back, what_somebody_takes_away_is_put_back, a_prefix_that_changed_is_deprecated, the_second_line_takes_over]
