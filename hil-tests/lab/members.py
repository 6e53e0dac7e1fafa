"""Members of one network on lines of `nets`: making the network, joining, and asking daemons."""

import sys
import threading

from .altnet import SHELL, altnet, wait_for_answer
from .nets import Net
from .places import Place, wait_for

PASSPHRASE = "a lab's"
# A policy by which everybody may ping everybody.
PINGS = """
[[rules]]
name = "pings"
from = ["members"]
to = ["anything"]
services = ["ping"]
"""
RELAY = """
[relay]
listen = "0.0.0.0:443"
"""


def found(net: Net, owner: Place, relays: list[Place], homes: list[Place], policy: str) -> None:
    """Makes the network, and has everybody join; where no UDP is to pass, none does from the start."""
    owner.run("altnet-provision", "network", "create", "home")
    for place in relays:
        roles = "--role relay --role directory --admit" if place is relays[0] else "--role relay"
        endpoints = " ".join(f"--endpoint {endpoint(address)}" for address in net.addresses[place.name])
        bundle = owner.folder / f"{place.name}.bundle"
        owner.run(*SHELL, f"altnet-provision bundle --name {place.name} {roles} {endpoints} -o {bundle}")
        start(place, RELAY)
        place.run("altnet", "join", "--bundle", str(bundle))
    (owner.folder / "policy.toml").write_text(policy)
    owner.run("altnet-provision", "policy", "publish", "policy.toml", "--yes")
    invite = owner.run("altnet-provision", "invite", "create", "--uses", str(len(homes)), "--no-qr").stdout.strip()
    for place in homes:
        start(place)
    for place in homes:
        if "udp-blocked" in place.name:
            net.say(f"udp {place.name} off")
    at_once([lambda place=place: place.run("altnet", "join", "--name", place.name, invite) for place in homes])
    for place in homes:
        wait_for(f"{place.name} to be served by every relay", lambda place=place: served(place) == len(relays), timeout_s=60)
        wait_for(f"{place.name} to know everybody", lambda place=place: len(altnet(place, "members")["members"]) >= len(homes) + len(relays), timeout_s=60)


def endpoint(address: str) -> str:
    """Where a daemon listens at an address."""
    return f"[{address}]:51820" if ":" in address else f"{address}:51820"


def start(place: Place, config: str | None = None) -> None:
    """Starts a place's daemon, with what its configuration says already if none is given, and waits until it answers."""
    file = place.folder / "altnet.toml"
    if config is not None or not file.exists():
        file.write_text(config or "")
    daemon = place.start("altnetd", "--config", "altnet.toml", log=f"{place.name}.log")
    wait_for_answer(place, daemon)


def at_once(things: list) -> None:
    """Does several things at the same time; raises what the first of them raised."""
    faults: list[BaseException] = []

    def do(thing) -> None:
        try:
            thing()
        except BaseException as fault:  # noqa: BLE001 - raised again below
            faults.append(fault)

    threads = [threading.Thread(target=do, args=(thing,)) for thing in things]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def status(place: Place) -> dict:
    """How a place is."""
    return altnet(place, "status")


def served(place: Place) -> int:
    """How many relays forward for a place."""
    return sum(relay["up"] for relay in status(place)["relays"])


def say(text: str) -> None:
    """Progress, beside the facts."""
    print(text, file=sys.stderr, flush=True)
