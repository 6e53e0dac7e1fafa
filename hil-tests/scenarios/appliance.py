"""A house behind one of the disk images: its provider and its computer are others' work, and the box is what ci/image makes."""

import ipaddress
import xml.etree.ElementTree

from lab import clients, network
from lab.altnet import PYTHON, SHELL, altnet
from lab.appliances import Appliance, need
from lab.members import start
from lab.places import Lab, Place, wait_for
from lab.providers import LINE, PAGE, SITE, SITE4, SITE6, Provider, addresses

from .images import BOOTED, a_copy, boots, image, scratch

PREFIX = "2001:db8:a00::/64"  # the LAN's of what is delegated
LAN = "192.168.77.1"
OPEN = 8080  # what the house opens, at the box for IPv4 and at the client for IPv6
OPENED = """[router]
[[router.host]]
name = "desk"
mac = "{mac}"
suffix = "{suffix}"
[[router.forward]]
port = {port}
to = "{ipv4}"
[[router.pinhole]]
host = "desk"
ports = [{port}]
"""
SCAN_RATE = "2000"  # packets a second: what an emulated machine can drop without losing any
RELAY, FRIEND = "203.0.113.10", "203.0.113.11"
POLICY = """
[[rules]]
name = "pages-for-all"
from = ["members"]
to = ["anything"]
services = ["tcp/80"]
"""
APP = "notes.home.alt"  # what the friend shares


def a_house_lives_behind_an_image() -> None:
    """A computer behind the image for ARM has both internets and names; outside no port answers but what its owner opens, and a power cut changes no address."""
    lives_behind(*BOOTED[0])


def a_house_lives_behind_an_image_for_pcs() -> None:
    """The same behind the image for PCs, booted by EFI."""
    lives_behind(*BOOTED[2])


def lives_behind(board: str, kind: str) -> None:
    """Has a house behind a board's image, in a machine of this kind."""
    need()
    with scratch() as folder, Lab() as lab, Appliance(lab, Provider(lab), kind, a_copy(image(board), folder, "disk.img")) as box:
        switched_on(box)
        lived_in(box)
        kept = opened(box)
        survived(box, kept)
        joined(box)


def switched_on(box: Appliance) -> None:
    """Boots a box on a provider's line."""
    box.switch_on()
    if not addresses(box.provider.place, LINE, 4):
        box.serve()
        box.provider.answer_names()
    boots(box.machine, "A")
    box.machine.open_shell()
    box.settled()


def lived_in(box: Appliance) -> None:
    """Holds the client to have both families, names by the box, and pages by both."""
    address, made = box.lease(), box.slaac(PREFIX)
    resolv = box.client.path("/etc/resolv.conf").read_text()
    assert f"nameserver {LAN}" in resolv, f"the client was told of other resolvers: {resolv}"
    for family, host in (("4", SITE4), ("6", SITE6)):
        wait_for(f"{SITE} over IPv{family}", lambda: named(box.client, family) == {host}, box.patience_s, every_s=1)
        wait_for(f"the page over IPv{family}", lambda: page(box.client, f"http://{SITE}/", family) == PAGE, box.patience_s)
    # Who talks to the provider has no more rights than it needs.
    owners = box.machine.ask("ps -o user,comm | grep dhcpcd")
    assert any(line.startswith("dhcpcd ") for line in owners), f"dhcpcd runs as root alone: {owners}"
    outside = next(iter(box.outside(4)))
    assert box.provider.visitors()[-2:] == [outside, made], box.provider.visitors()
    print(f"{address} is seen as {outside}, {made} as itself")


def opened(box: Appliance) -> tuple:
    """Holds everything to be shut outside, opens one port by a file that is tried and confirmed, and holds the rest to be as it was; returns the addresses."""
    address, made = box.lease(), box.slaac(PREFIX)
    outside4, outside6 = (next(iter(box.outside(family))) for family in (4, 6))
    serve(box.client, OPEN)
    for host in (outside4, made):
        assert page(box.provider.place, url(host), "46") == "", f"{host} answered at port {OPEN} before it was opened"

    suffix = ipaddress.IPv6Address(int(ipaddress.IPv6Address(made)) % (1 << 64))
    box.write("/tmp/new.toml", OPENED.format(mac=clients.mac(box.client), ipv4=address, suffix=suffix, port=OPEN))
    box.router("apply", "/tmp/new.toml")
    for host in (outside4, made):
        wait_for(f"{host} to answer at port {OPEN}", lambda: page(box.provider.place, url(host), "46") == "inside", box.patience_s)
    assert page(box.client, url(outside4), "4") == "inside", "the forward isn't there from inside"
    box.router("confirm")

    # With a door that is open in each family: a scan that found nothing could be one that sees nothing.
    for host, by, expected in (
        (outside4, "tcp", [OPEN]), (made, "tcp", [OPEN]), (outside6, "tcp", []), (outside4, "udp", []), (outside6, "udp", []), (made, "udp", []),
    ):
        found, silent = scanned(box.provider.place, host, by)
        assert found == {port: "open" for port in expected}, f"{host} by {by}: {found}"
        assert silent == 65535 - len(expected), f"{host} by {by}: {silent} ports say nothing"
        print(f"{host}: of 65535 ports by {by.upper()} {expected or 'none'} open, {silent} silent")
    return address, made, outside4, outside6


def survived(box: Appliance, kept: tuple) -> None:
    """Pulls the plug: after the box booted again the client, which does nothing, and what was opened have the same addresses."""
    box.cut_power()
    switched_on(box)
    address, made, outside4, outside6 = kept
    for family, host in ((4, SITE4), (6, SITE6)):
        wait_for(f"the page over IPv{family} after the power cut", lambda: page(box.client, f"http://{SITE}/", str(family)) == PAGE, box.patience_s)
    assert (next(iter(box.outside(4))), next(iter(box.outside(6)))) == (outside4, outside6), (box.outside(4), box.outside(6))
    assert made in addresses(box.client, "eth0", 6) and not addresses(box.client, "eth0", 6)[made].get("deprecated")
    for host in (outside4, made):
        wait_for(f"{host} to answer at port {OPEN}", lambda: page(box.provider.place, url(host), "46") == "inside", box.patience_s)
    # As a computer that was switched off too.
    assert box.lease() == address
    print("after a power cut the house has what it had, at the same addresses")


def joined(box: Appliance) -> None:
    """Has the box join a network by a bundle, and the client open a page of another member's."""
    relay, friend = beyond(box.provider, "relay", RELAY), beyond(box.provider, "friend", FRIEND)
    founded(relay, relay)
    for name, words in (("house-a", "--role gateway --site 1"), ("house-b", "--role gateway --role apps --site 2")):
        relay.run(*SHELL, f"altnet-provision bundle --name {name} {words} -o {name}.bundle")
    start(friend)
    (friend.folder / "house-b.bundle").write_bytes((relay.folder / "house-b.bundle").read_bytes())
    friend.run("altnet", "join", "--bundle", "house-b.bundle")
    serve(friend, 8000)
    friend.run("altnet", "app", "add", "notes", "--to", f"{FRIEND}:8000", "--port", "80")

    (relay.folder / "policy.toml").write_text(POLICY)
    relay.run("altnet-provision", "policy", "publish", "policy.toml", "--yes")

    box.bring(relay.folder / "house-a.bundle", "/tmp/house-a.bundle")
    said = box.machine.ask("altnet join --bundle /tmp/house-a.bundle", timeout_s=box.patience_s)
    print(f"the box joined: {said[-1]}")
    wait_for("the page under .alt", lambda: page(box.client, f"http://{APP}/", "6") == "inside", 2 * box.patience_s, every_s=1)
    assert altnet(friend, "peers")["peers"], "the page came by another way than the private network"
    print("a page under .alt came through the box")


def founded(owner: Place, relay: Place) -> None:
    """Makes a network on its owner's computer, whose relay and directory is a computer on the internet."""
    owner.run("altnet-provision", "network", "create", "home")
    owner.run(*SHELL, f"altnet-provision bundle --name relay1 --role relay --role directory --admit --endpoint {RELAY}:51820 -o relay1.bundle")
    start(relay)
    (relay.folder / "relay1.bundle").write_bytes((owner.folder / "relay1.bundle").read_bytes())
    relay.run("altnet", "join", "--bundle", "relay1.bundle")


def beyond(provider: Provider, name: str, address: str) -> Place:
    """A computer on the internet, with our programs."""
    place = provider.place.lab.place(name)
    network.cable(place, "eth0", provider.place, name)
    network.address(place, "eth0", f"{address}/32")
    place.ip("route", "add", "default", "dev", "eth0")
    provider.place.ip("route", "add", f"{address}/32", "dev", name)
    provider.place.sysctl(f"net.ipv4.conf.{name}.proxy_arp=1")
    return place


def scanned(place: Place, host: str, by: str) -> tuple[dict[int, str], int]:
    """What nmap finds of all ports of a host: how those answer that do, and how many say nothing."""
    how = {"tcp": "-sS", "udp": "-sU"}[by]
    done = place.run(
        "nmap", how, *(["-6"] if ":" in host else []), "-n", "-Pn", "-p1-65535", "--min-rate", SCAN_RATE, "--max-retries", "1", "-oX", "-", host,
        timeout_s=1800,
    )
    [ports] = xml.etree.ElementTree.fromstring(done.stdout).iter("ports")
    silent = ("filtered", "open|filtered")
    found = {int(port.get("portid")): port.find("state").get("state") for port in ports.iter("port")}
    rest = {extra.get("state"): int(extra.get("count")) for extra in ports.iter("extraports")}
    assert set(rest) <= set(silent), f"{host} by {by}: {rest}"
    said = {port: state for port, state in found.items() if state not in silent}
    return said, sum(rest.values()) + len(found) - len(said)


def named(client: Place, family: str) -> set[str]:
    """The addresses that a client's own resolver finds for the site."""
    said = client.run("getent", f"ahostsv{family}", SITE, check=False).stdout
    return {line.split()[0] for line in said.splitlines()}


def page(place: Place, url: str, family: str) -> str:
    """A page as a place sees it, over IPv4, IPv6, or what the address says ("46"); nothing if it doesn't come."""
    by = [f"-{family}"] if len(family) == 1 else []
    return place.run("curl", *by, "--silent", "--fail", "--max-time", "10", url, check=False).stdout


def url(host: str) -> str:
    """Of what the house opens."""
    return f"http://[{host}]:{OPEN}/" if ":" in host else f"http://{host}:{OPEN}/"


def serve(place: Place, port: int) -> None:
    """Puts a page on a computer, at every address."""
    folder = place.folder / "www"
    folder.mkdir()
    (folder / "index.html").write_text("inside")
    place.start(PYTHON, "-m", "http.server", "--bind", "::", "--directory", str(folder), str(port), log=f"{place.name}-http.log")
    wait_for(f"the page of {place.name}", lambda: f":{port}" in place._tool("ss", "-Hltn"))


LONG = [a_house_lives_behind_an_image]
UNTRIED = [a_house_lives_behind_an_image_for_pcs]
SCENARIOS = []
