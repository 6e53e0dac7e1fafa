"""Lines that come to carry less, under what runs over them."""

import hashlib
import pathlib
import secrets
import time

from lab import clients
from lab.altnet import Story, altnet, metric, path_between_homes
from lab.places import Lab, Place, wait_for

FILE_BYTES = 24 << 20
RATE = "2M"  # twelve seconds
# What TCP makes of a second without an answer: it doubles its patience.
MOST_S = 6
CUT = "altnet_cut_datagrams_total"


def line_narrows_under_a_transfer() -> None:
    """A file crosses while the carrier's line, and then the gateway's own, comes to carry 1280 and 1000 bytes: it arrives whole, in one connection."""
    with Lab() as lab:
        story = Story(lab, "portcone", "portcone")
        story.tell()
        story.fetch()
        wait_for("the path to be direct", lambda: path_between_homes(story) == "direct")
        home, client = story.internet.b, story.internet.a.client
        content = secrets.token_bytes(FILE_BYTES)
        (lab.dir / "www" / "file").write_bytes(content)
        clients.resolver(client)
        for place, link in ((home.isp, "uplink"), (home.gateway, "wan")):
            for mtu in (1280, 1000):
                before = metric(home.gateway, CUT)
                fetched = client.folder / f"{link}-{mtu}"
                longest = fetch(client, story.url() + "file", fetched, lambda: place.ip("link", "set", link, "mtu", str(mtu)))
                print(f"{place.name}'s {link} to {mtu} bytes: at most {longest:.2f} s without a byte")
                assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(content).digest(), "the file arrived damaged"
                assert longest <= MOST_S, f"nothing came for {longest:.2f} s"
                peer = next(peer for peer in altnet(home.gateway, "peers")["peers"] if peer["name"] == "house-a")
                print(f"{home.gateway.name}: {peer['datagram_bytes']} bytes pass, packets up to {peer['mtu_bytes']}")
                assert peer["in_pieces"] and peer["mtu_bytes"] == 1280, peer
                assert metric(home.gateway, CUT) > before, "nothing was cut"
            place.ip("link", "set", link, "mtu", "1500")


def fetch(client: Place, url: str, into: pathlib.Path, happen) -> float:
    """Downloads a file, has something happen once a part of it is there, and returns the longest time without a byte."""
    curl = client.start("curl", "-sS", "--fail", "--max-time", "90", "--limit-rate", RATE, "-o", str(into), url, log=f"{into.name}.log")
    size = lambda: into.stat().st_size if into.exists() else 0
    wait_for("a part of the file", lambda: size() > FILE_BYTES // 8)
    happen()
    longest, last, since = 0.0, size(), time.monotonic()
    while curl.poll() is None:
        time.sleep(0.02)
        now = time.monotonic()
        if size() > last:
            longest, last, since = max(longest, now - since), size(), now
    said = (client.lab.dir / f"{into.name}.log").read_text()
    assert curl.returncode == 0, f"the transfer ended: {said}"
    return longest


SCENARIOS = [line_narrows_under_a_transfer]
