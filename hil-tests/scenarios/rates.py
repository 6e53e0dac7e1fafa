"""A line that is shared fairly: the queue is kept at the box, by cake, and judged by iperf3 and ping."""

import json
import re
import statistics

from lab.places import Lab, wait_for
from lab.providers import LINE, House, Provider, prepare
from lab.sites import FAR4, beyond

from .lans import switch
from .router import BARE, housed

DOWN_KBIT, UP_KBIT = 8000, 4000
SHARED = BARE + f"[[router.wan]]\nsqm = {{ download_kbit = {DOWN_KBIT}, upload_kbit = {UP_KBIT} }}\n"
# What the line itself carries where it is narrow: a little more, as its owner would have measured.
LINE_DOWN_KBIT, LINE_UP_KBIT = 10000, 5000
# Of a rate, what iperf3 counts may be: headers and Ethernet's overhead take 6 % of it.
LEAST, MOST = 0.75, 1.02
PORT = 5201  # iperf3's
DIRECTIONS = {"down": ("--reverse",), "up": ()}
CALM_MS = 50
# As much as is sent where nothing is to hold it: three times what is held, since all that an emulated processor can do takes it too long.
FREE = ("--bitrate", f"{3 * DOWN_KBIT}K")


def a_shared_line_is_held_to_its_rates_and_stays_quick() -> None:
    """On a line without a limit iperf3 gets what the file says, either way; on a narrow one with a long queue before it a ping stays quick beside iperf3, and doesn't without."""
    prepare()
    with Lab() as lab:
        provider, house = housed(lab, SHARED)
        house.lease()
        wait_for("the page", lambda: house.fetch(4, check=False), timeout_s=30)
        wait_for("the queues", lambda: queues(house) == 2)
        far = beyond(provider)
        far.start("iperf3", "--server", "--port", str(PORT), log="iperf3-server.log")
        wait_for("iperf3's server", lambda: f":{PORT} " in far._tool("ss", "-Hltn"))

        held = {way: load(house, way)[0] for way in DIRECTIONS}
        for way, kbit in (("down", DOWN_KBIT), ("up", UP_KBIT)):
            assert LEAST * kbit <= held[way] <= MOST * kbit, f"{held[way]:.0f} kbit/s go {way}, of {kbit}"
        narrow(provider)
        quick = {way: load(house, way)[1] for way in DIRECTIONS}
        switch(house, BARE)
        wait_for("the queues to be gone", lambda: queues(house) == 0)
        slow = {way: load(house, way)[1] for way in DIRECTIONS}
        widen(provider)
        free = {way: load(house, way, FREE)[0] for way in DIRECTIONS}
        for way, kbit in (("down", DOWN_KBIT), ("up", UP_KBIT)):
            print(f"{way}: {held[way]:.0f} of {kbit} kbit/s, {free[way]:.0f} without; a ping beside it takes {quick[way]:.1f} ms, {slow[way]:.1f} ms without")
            assert free[way] > 2 * kbit, "the line itself holds what goes by it"
            assert slow[way] > CALM_MS, "the line's own queue is short"
            assert quick[way] < CALM_MS and 5 * quick[way] < slow[way]


def queues(house: House) -> int:
    """How many queues by cake the router has."""
    return house.router._tool("tc", "qdisc", "show").count("qdisc cake ")


def load(house: House, way: str, limit: tuple[str, ...] = ()) -> tuple[float, float]:
    """Has as much cross as there is room for, up to a limit; how much that was, in kbit/s, and how long most pings took beside it, in ms."""
    client = house.client
    log = house.lab.dir / f"iperf3-{len(list(house.lab.dir.glob('iperf3-*')))}.log"
    # Reno fills a queue to its end before it learns how long that is.
    crossing = client.start(
        "iperf3", "--client", FAR4, "--port", str(PORT), "--time", "10", "--congestion", "reno", "--json", *DIRECTIONS[way], *limit,
        log=log.name,
    )
    # A connection for what they say to each other, and one for the load.
    connections = lambda: client._tool("ss", "-Htn", "state", "established", "dst", f"{FAR4}:{PORT}")
    wait_for("iperf3 to begin", lambda: connections().count(f"{FAR4}:{PORT}") >= 2)
    said = client.run("ping", "-n", "-c", "25", "-i", "0.2", "-W", "2", FAR4, check=False).stdout
    assert crossing.poll() is None, "the load ended before the pings did"
    wait_for("iperf3 to end", lambda: crossing.poll() is not None, timeout_s=60)
    found = json.loads(log.read_text())
    assert "error" not in found, found["error"]
    took = [float(ms) for ms in re.findall(r" time=([\d.]+) ms", said)]
    assert len(took) >= 10, f"most pings were lost\n{said}"
    return found["end"]["sum_received"]["bits_per_second"] / 1000, statistics.median(took)


def narrow(provider: Provider) -> None:
    """Has the provider's line carry little, with a queue of a second before it either way, as modems have them."""
    place, tc = provider.place, lambda *words: provider.place._tool("tc", *words)
    place.ip("link", "add", "modem", "type", "ifb")
    place.ip("link", "set", "modem", "up")
    tc("qdisc", "add", "dev", LINE, "ingress")
    tc("filter", "add", "dev", LINE, "parent", "ffff:", "matchall", "action", "mirred", "egress", "redirect", "dev", "modem")
    for device, kbit in ((LINE, LINE_DOWN_KBIT), ("modem", LINE_UP_KBIT)):
        a_second = kbit * 1000 // 8
        tc("qdisc", "add", "dev", device, "root", "tbf", "rate", f"{kbit}kbit", "burst", "10000", "limit", str(a_second))


def widen(provider: Provider) -> None:
    """Has the provider's line carry whatever comes again."""
    for words in (("dev", LINE, "ingress"), ("dev", LINE, "root")):
        provider.place._tool("tc", "qdisc", "del", *words)
    provider.place.ip("link", "delete", "modem")


SCENARIOS = []
GUEST = [a_shared_line_is_held_to_its_rates_and_stays_quick]
