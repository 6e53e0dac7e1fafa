"""A page of home B, read on a computer of home A."""

import subprocess

from lab import captures
from lab.altnet import ROOT, Story, path_between_homes
from lab.places import CannotRunHere, Lab, wait_for


def page_over_relay() -> None:
    """Port-restricted against symmetric: the page comes over the relay, sealed."""
    check("portcone", "symmetric", path="relay")


def page_direct() -> None:
    """A reachable gateway: the page comes directly, sealed, and the relay is left alone."""
    check("portcone", "public", path="direct")


def chromium_opens_the_page() -> None:
    """An unmodified browser, on a computer without IPv6 from an ISP, opens the page by its name."""
    if subprocess.run([ROOT / "ci/install", "browser"]).returncode:
        raise CannotRunHere("chromium could not be installed")
    canary = captures.canary()
    with Lab() as lab:
        story = Story(lab, page=f"<p id=found>{canary}</p>")
        story.tell()
        story.fetch()
        seen = story.internet.a.client.run(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=/run/home/chromium",
            "--virtual-time-budget=10000", "--dump-dom", story.url(), timeout_s=120,
        ).stdout
        assert canary in seen, f"the browser shows something else:\n{seen[:2000]}"


def check(kind_a: str, kind_b: str, path: str) -> None:
    """Tells the story and holds it to the path it should end on."""
    canary = captures.canary()
    with Lab() as lab:
        story = Story(lab, kind_a, kind_b, page=canary)
        wire = captures.Capture(story.internet.bridge, "br0")
        story.tell()
        assert canary in story.fetch(), "the page is another one"
        wait_for(f"the path to be {path}", lambda: path_between_homes(story) == path)
        story.fetch()
        wire.stop()
        sealed = wire.sealed()
        print(f"path {path_between_homes(story)}, sealed packets {dict(sealed)}")
        assert sealed["relayed" if path == "relay" else "direct"] > 0, f"no packet was sealed: {dict(sealed)}"
        assert not wire.contains(canary), "the page crossed the internet in the clear"


SCENARIOS = [page_over_relay, page_direct]
LONG = [chromium_opens_the_page]
