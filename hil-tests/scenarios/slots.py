"""A release on a box whose slots are files, judged by a real router between a provider and a computer."""

import json
import pathlib
import tempfile
import time
from collections.abc import Callable

from lab import boxes, cards
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
HOUSE = '[dns]\nforward = ["198.51.100.1"]\n[router]\n[router.ntp]\nservers = []\nserve = false\n'
CONFIG = f'state_directory = "/run/altnet-state"\n{HOUSE}'
CHARGE_S = 600


class Appliance:
    """A house's router on a box of files, with altnetd beside it."""

    def __init__(self, lab: Lab, box: Callable[[House], boxes.Box] = lambda house: boxes.Box(house.router.folder / "box")):
        self.provider, self.house = Provider(lab), House(lab, CONFIG)
        self.provider.plug(self.house)
        self.box = box(self.house)
        self.provider.place.start(PYTHON, "-c", RESOLVER, log="resolver.log")

    def boot(self, *words: str) -> str:
        """Boots, and begins to serve, the router with these words too; returns the slot."""
        which = self.box.boot()
        self.house.start("--root", str(self.box.root), *words)
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

    def install(self, version: str, counter: int, slot: bytes | None = None, words: tuple[str, ...] = ()) -> dict:
        """Installs a release, and boots it, the router with these words."""
        made = boxes.bundle(self.box.board, slot or boxes.slot(counter), version, counter)
        file = self.box.put("release.bundle", made)
        installed = self.update("install", "--reboot", str(file))
        assert self.box.was_told_to_boot()
        self.cut_power()
        assert self.boot(*words) == installed["slot"], installed
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


def a_release_is_refused_where_the_data_have_no_room() -> None:
    """With not a byte left on the data partition a release is refused before its slot is touched; the box boots and serves the house all the same, and takes the release once there is room."""
    prepare()
    cards.need()
    with tempfile.TemporaryDirectory(prefix="altnet-slots-") as name, Lab() as lab:
        folder = pathlib.Path(name)
        (folder / "altnet.toml").write_text(CONFIG.replace("/run/altnet-state", f"{cards.BOX}/data/altnet"))
        cards.laid_out(folder / "disk", boxes.slot(1), folder / "altnet.toml", folder)
        box = Appliance(lab, lambda house: cards.on_card(house, folder / "disk", folder / "writes"))
        with box.box:
            assert box.boot(*cards.WORDS) == "A"
            box.until_all_works()
            file = box.box.put("release.bundle", boxes.bundle(box.box.board, boxes.slot(2), "0.2.0", 2))
            # In pieces that become smaller, to the last block.
            fill = f"cd {cards.BOX}/data; for size in 1048576 65536 4096 512; do dd if=/dev/zero of=full-$size bs=$size; done; sync"
            box.house.router.run("bash", "-c", fill, check=False)
            before = (box.box.choice(), slot_b(box))
            refused = box.house.router.run("altnet-update", "--root", str(box.box.root), "install", str(file), check=False)
            assert refused.returncode == 1 and "Free some room on the data partition" in refused.stderr, refused
            assert (box.box.choice(), slot_b(box)) == before, "the slot or the choice was touched"
            box.cut_power()
            assert box.boot(*cards.WORDS) == "A"
            box.until_all_works()
            box.house.router.run("bash", "-c", f"rm {cards.BOX}/data/full-*; sync")
            assert box.install("0.2.0", 2, words=cards.WORDS)["slot"] == "B"
            box.cut_power()


def slot_b(box: Appliance) -> bytes:
    """As much of slot B as a release of a test has."""
    with open(box.box.root / "dev/altnet/slot-b", "rb") as device:
        return device.read(boxes.SLOT_BYTES)


SCENARIOS = [a_release_is_confirmed_when_what_worked_works_again, a_release_is_refused_where_the_data_have_no_room]
LONG = [a_release_in_which_names_are_not_resolved_is_left]
