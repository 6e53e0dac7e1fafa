"""Packets that pass by a shorter way, once the rules have let their connection through; told by conntrack's own program."""

import json
import subprocess

from lab.places import Lab, wait_for
from lab.providers import SITE4, SITE6, House, prepare

from .lans import switch
from .router import BARE, housed

PORT = 5201  # iperf3's
SITES = {4: SITE4, 6: SITE6}
REFUSING = BARE + f'[[router.rule]]\nfrom = "lan"\nto = "wan"\nprotocol = "tcp"\nports = [80, {PORT}]\naction = "refuse"\n'
LONG_WAY = BARE + "[router.offload]\nenabled = false\n"
LASTS_S = 40


def what_was_let_through_takes_the_shorter_way() -> None:
    """A connection of either family is offloaded; a rule that comes later is for those that are opened after it, and the one before goes on; switched off, none is offloaded."""
    prepare()
    with Lab() as lab:
        provider, house = housed(lab, BARE)
        house.lease()
        house.slaac("2001:db8:a00::/64")
        both = lambda: [house.fetch(family, check=False) for family in SITES]
        wait_for("both pages", lambda: all(both()), timeout_s=60)
        for family in SITES:
            provider.place.start("iperf3", "--server", f"-{family}", "--port", str(PORT), log=f"iperf3-server{family}.log")
        wait_for("iperf3's servers", lambda: provider.place._tool("ss", "-Hltn").count(f":{PORT} ") == 2)

        running = {family: connection(house, family, LASTS_S) for family in SITES}
        for family in SITES:
            wait_for(f"the connection over IPv{family} to be offloaded", lambda: offloaded(house, family), timeout_s=30)
        assert both() == [True, True]
        switch(house, REFUSING)
        assert both() == [False, False], "a new rule isn't for new connections"
        assert all(crossing.poll() is None for crossing in running.values()), "what crossed ended before it was looked at"
        for family, crossing in running.items():
            ends_well(house, family, crossing)
        switch(house, LONG_WAY)
        assert both() == [True, True]
        looks = {family: 0 for family in SITES}
        for family in SITES:
            crossing = connection(house, family, 5)
            while crossing.poll() is None:
                looks[family] += "ESTABLISHED" in tracked(house, family)
                assert not offloaded(house, family), f"the connection over IPv{family} is offloaded, and that is switched off"
            ends_well(house, family, crossing)
        assert all(looks.values()), looks
        print(f"connections over both families are offloaded, and outlast a rule against port {PORT}; switched off, none of {sum(looks.values())} looks found one")


def connection(house: House, family: int, lasts_s: int) -> subprocess.Popen:
    """Begins to send something, not much, from the client to the internet."""
    log = house.lab.dir / f"iperf3-{family}.log"
    log.unlink(missing_ok=True)
    return house.client.start(
        "iperf3", "--client", SITES[family], "--port", str(PORT), "--time", str(lasts_s), "--bitrate", "1M", "--length", "10K", "--json", log=log.name,
    )


def ends_well(house: House, family: int, crossing: subprocess.Popen) -> None:
    """Waits for what was begun to end, and holds all of it to have arrived."""
    wait_for("iperf3 to end", lambda: crossing.poll() is not None, timeout_s=LASTS_S + 20)
    found = json.loads((house.lab.dir / f"iperf3-{family}.log").read_text())
    assert crossing.returncode == 0 and "error" not in found, f"what crossed over IPv{family} ended early: {found.get('error')}"
    sent, received = (found["end"][key]["bytes"] for key in ("sum_sent", "sum_received"))
    assert received > 0.9 * sent > 0, f"{received} of {sent} bytes crossed over IPv{family}"


def tracked(house: House, family: int) -> str:
    """The connections to iperf3's port, as the kernel follows them."""
    return house.router.run("conntrack", "-L", "-f", f"ipv{family}", "-p", "tcp", "--orig-port-dst", str(PORT)).stdout


def offloaded(house: House, family: int) -> bool:
    """Whether one of them passes by the shorter way."""
    return "[OFFLOAD]" in tracked(house, family)


SCENARIOS = []
GUEST = [what_was_let_through_takes_the_shorter_way]
