"""A release on a box whose slots are files, judged by a real router between a provider and a computer."""

import json
import time

from lab import boxes
from lab.altnet import PYTHON, wait_for_answer
from lab.places import Lab, wait_for
from lab.providers import House, Provider, prepare

# A provider's resolver that answers every question with nothing, for as long as it runs.
RESOLVER = """
import socket
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.bind(("198.51.100.1", 53))
while True:
    asked, client = resolver.recvfrom(4096)
    resolver.sendto(asked[:2] + bytes([0x81, 0x80]) + asked[4:], client)
"""
CONFIG = (
    'state_directory = "/run/altnet-state"\n[dns]\nforward = ["198.51.100.1"]\n[router]\n[router.ntp]\nservers = []\nserve = false\n'
)
CHARGE_S = 600


class Appliance:
    """A house's router on a box of files, with altnetd beside it."""

    def __init__(self, lab: Lab):
        self.provider, self.house = Provider(lab), House(lab, CONFIG)
        self.provider.plug(self.house)
        self.box = boxes.Box(self.house.router.folder / "box")
        self.provider.place.start(PYTHON, "-c", RESOLVER, log="resolver.log")

    def boot(self) -> str:
        """Boots, and begins to serve; returns the slot."""
        which = self.box.boot()
        self.house.start("--root", str(self.box.root))
        self.altnetd = self.house.router.start("altnetd", "--config", str(self.house.config), log=f"{self.house.router.name}.log")
        wait_for_answer(self.house.router, self.altnetd)
        return which

    def cut_power(self) -> None:
        """Ends everything at once."""
        self.altnetd.kill()
        self.altnetd.wait()
        self.house.cut_power()

    def update(self, *words: str) -> dict:
        """Says something about the box's releases."""
        done = self.house.router.run("altnet-update", "--root", str(self.box.root), "--json", *words, timeout_s=120)
        return json.loads(done.stdout)

    def works(self) -> dict:
        """What works, by the router."""
        look = self.house.ask("look")
        return {name: look[name] for name in ("wan", "dns", "lan")}

    def until_all_works(self) -> None:
        """Waits until a house has what it needs."""
        self.house.lease()
        wait_for("everything to work", lambda: set(self.works().values()) == {"works"}, timeout_s=60, every_s=1)

    def install(self, version: str, counter: int) -> dict:
        """Installs a release, and boots it."""
        made = boxes.bundle(self.box.board, boxes.slot(counter), version, counter)
        file = self.box.put("release.bundle", made)
        installed = self.update("install", "--reboot", str(file))
        assert self.box.was_told_to_boot()
        self.cut_power()
        assert self.boot() == installed["slot"], installed
        return installed


def a_release_is_confirmed_when_what_worked_works_again() -> None:
    """A release is installed while all works; with the cable out it costs nothing, and a minute after it is back it is the good one."""
    prepare()
    with Lab() as lab:
        box = Appliance(lab)
        assert box.boot() == "A"
        box.until_all_works()
        installed = box.install("0.2.0", 2)
        assert installed["before"] == {"wan": True, "dns": True, "private": False, "lan": True}, installed

        box.provider.place.ip("link", "set", "line", "down")
        wait_for("the WAN to be down", lambda: box.works()["wan"] == "outside", timeout_s=30)
        waits = box.update("status")["pending"]
        time.sleep(30)
        pending = box.update("status")["pending"]
        assert pending["phase"] == "tried" and pending["now"]["wan"] == "outside", pending
        assert pending["charged_s"] <= waits["charged_s"] + 10, (waits, pending)
        box.provider.place.ip("link", "set", "line", "up")
        box.until_all_works()
        began = time.monotonic()
        status = wait_for("the release to be confirmed", lambda: (said := box.update("status"))["last"] and said, timeout_s=120, every_s=1)
        assert status["last"]["ended"] == "confirmed" and status["pending"] is None, status
        assert box.box.choice() == "BA33" and not box.box.was_told_to_boot()
        print(f"out for 30 s, {pending['charged_s']} s count; confirmed {time.monotonic() - began:.0f} s after all worked again")


def a_release_in_which_names_are_not_resolved_is_left() -> None:
    """In a new release altnetd doesn't run: after ten minutes the router boots the one before, which stays."""
    prepare()
    with Lab() as lab:
        box = Appliance(lab)
        box.boot()
        box.until_all_works()
        box.install("0.2.0", 2)
        box.altnetd.kill()
        box.altnetd.wait()
        began = time.monotonic()
        wait_for("the box to be told to boot", box.box.was_told_to_boot, timeout_s=CHARGE_S + 120, every_s=1)
        print(f"told to boot after {time.monotonic() - began:.0f} s")
        box.cut_power()
        assert box.boot() == "A"
        status = box.update("status")
        assert status["last"]["ended"] == "did-not-work" and status["last"]["working"]["dns"] is False, status["last"]
        assert box.box.choice() == "AB30"


SCENARIOS = [a_release_is_confirmed_when_what_worked_works_again]
LONG = [a_release_in_which_names_are_not_resolved_is_left]
