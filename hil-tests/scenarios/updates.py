"""Releases on booted images: one that crashes, a box without room, a Pi, and a line that is out."""

import json
import os
import pathlib
import time

from lab import appliances, boxes, network
from lab.altnet import PYTHON
from lab.appliances import Appliance
from lab.machines import Machine, need
from lab.places import Lab, wait_for
from lab.providers import LINE, SITE4, Provider
from lab.remains import PLACES

from .appliance import switched_on
from .images import (
    BOOTED, Releases, a_copy, another_slot, boards, boots, choice, confirmed, copies, image, installed, offer, onto_data, put, scratch, serves, taken_back, wait_until_all_works,
)
from .slots import CHARGE_S, HOUSE, RESOLVER

# The board, the machine, the size of its card, and what can work there: it has no port for a house.
PI, PI_KIND, CARD_BYTES, PI_WORKS = "rpi", "raspi3b", 256 << 20, ("wan", "dns")


def status(machine: Machine) -> dict:
    """What the box says of its releases."""
    return json.loads(" ".join(machine.ask("altnet update status --json", timeout_s=120)))


def crashes(tree: pathlib.Path) -> None:
    """Has a root's first script crash the kernel."""
    script = tree / "etc/init.d/boot"
    script.write_text(script.read_text().replace("#!/bin/sh\n", "#!/bin/sh\necho c >/proc/sysrq-trigger\n", 1))


def crashed_thrice(machine: Machine) -> None:
    """Waits until slot B crashed as often as it is tried, and A is back."""
    for left in (2, 1, 0):
        machine.until(f"altnet: slot B (order BA, A has 3 tries left, B {left})", timeout_s=300)
        machine.until("sysrq triggered crash", "Kernel panic", timeout_s=300)
    boots(machine, "A")
    machine.open_shell()
    last = status(machine)["last"]
    assert (last["version"], last["slot"], last["ended"]) == ("crashing", "B", "never-came-up"), last


def a_release_that_crashes_at_boot_is_left() -> None:
    """A release whose kernel panics is begun three times by the boot loader; then the one before is back, with all that worked, and says why."""
    need()
    with scratch() as folder, Releases(folder) as releases:
        board, kind = BOOTED[0]
        whole = a_copy(image(board), folder, f"{kind}.img")
        offer(board, another_slot(image(board).with_suffix(".slot"), folder, "crashing", crashes), "crashing", folder)
        with Machine(kind, whole, folder / f"{kind}.log", reaches_host=True) as machine:
            boots(machine, "A")
            serves(machine, releases)
            installed(machine)
            began = time.monotonic()
            crashed_thrice(machine)
            print(f"{kind}: crashed three times, and was left after {time.monotonic() - began:.0f} s")
            assert choice.current(copies(whole, boards.load(board).loader)).order == "AB"


def unwatched(tree: pathlib.Path) -> None:
    """Has a root leave the watchdog alone: an emulated Pi restarts when that is started, rather than when nobody feeds it."""
    script = tree / "etc/init.d/altnet-routerd"
    before = script.read_text()
    script.write_text(before.replace('watchdog="--watchdog /dev/watchdog"', "watchdog="))
    assert script.read_text() != before


def a_pi_takes_a_release_goes_back_and_leaves_one_that_crashes() -> None:
    """The image for the Pi, in an emulated Pi 3 whose line is an adapter on USB, fetches a release, boots it and confirms it by what works; a person goes back; one whose kernel panics is begun three times, and left."""
    need()
    with scratch() as folder, Releases(folder) as releases:
        whole, slot = a_copy(image(PI), folder, "card.img"), image(PI).with_suffix(".slot")
        os.truncate(whole, CARD_BYTES)
        put(whole, PLACES["slot-a"][0], another_slot(slot, folder, "first", unwatched).read_bytes())
        length = offer(PI, another_slot(slot, folder, "next", unwatched), "next", folder)
        with Machine(PI_KIND, whole, folder / "pi.log", reaches_host=True) as machine:
            boots(machine, "A")
            serves(machine, releases, *PI_WORKS)
            installed(machine, *PI_WORKS)
            boots(machine, "B")
            print(f"{PI_KIND}: {length} bytes installed, booted, and confirmed after {confirmed(machine):.0f} s")
            taken_back(machine)
            offer(PI, another_slot(slot, folder, "crashing", crashes), "crashing", folder)
            machine.open_shell()
            wait_until_all_works(machine, *PI_WORKS)
            installed(machine, *PI_WORKS)
            began = time.monotonic()
            crashed_thrice(machine)
            print(f"{PI_KIND}: crashed three times, and was left after {time.monotonic() - began:.0f} s")
        assert str(choice.current(copies(whole, boards.load(PI).loader))).startswith("AB30")


def a_release_that_boots_while_the_line_is_out_waits_for_it() -> None:
    """A release boots with the cable of its line out, then has one on which nobody answers, for longer than it may fail by the box's own making: the house is served, nothing counts against it, it stays, and once the line is back it is confirmed."""
    appliances.need()
    board, kind = BOOTED[0]
    with scratch() as folder, Lab() as lab:
        whole = a_copy(image(board), folder, "disk.img")
        onto_data(whole, folder, {"altnet.toml": f'[update]\nfrom = "http://{SITE4}/"\n{HOUSE}', "release-keys": boxes.keys("rule adds")})
        with Appliance(lab, Provider(lab), kind, whole) as box:
            place = box.provider.place
            offer(board, another_slot(image(board).with_suffix(".slot"), folder, "next"), "next", place.folder / "www")
            switched_on(box)
            place.start(PYTHON, "-c", RESOLVER, log="resolver.log")
            wait_until_all_works(box.machine)
            installed(box.machine)
            box.machine.once("altnet: down at")
            box.machine.plug(0, False)
            boots(box.machine, "B")
            began = time.monotonic()
            box.machine.open_shell()
            address = box.lease()
            # A boot counts for its first two minutes.
            wait_for("nothing to count", lambda: waits(box)["charged_s"] == 0, timeout_s=300, every_s=5)
            assert waits(box)["now"]["wan"] == "outside", waits(box)

            network.block(place, LINE)
            box.machine.plug(0, True)
            wait_for("a broken release to be left by now", lambda: waits(box) and time.monotonic() > began + 1.2 * CHARGE_S, timeout_s=2 * CHARGE_S, every_s=10)
            pending = waits(box)
            # By a lease that it had before the line may look as if it worked.
            assert "outside" in (pending["now"]["wan"], pending["now"]["dns"]), pending
            assert pending["charged_s"] == 0 and pending["rounds"] == 0, pending
            assert not box.fetch(4, check=False), "the line isn't out"

            network.unblock(place)
            out_s, back = time.monotonic() - began, time.monotonic()
            last = wait_for("the release to be confirmed", lambda: status(box.machine)["last"], timeout_s=600, every_s=5)
            assert (last["version"], last["slot"], last["ended"]) == ("next", "B", "confirmed"), last
            assert choice.current(copies(whole, boards.load(board).loader)).order == "BA"
            assert box.fetch(4), "no page"
            print(f"{kind}: out for {out_s:.0f} s, in which {address} was given out and nothing counted; confirmed {time.monotonic() - back:.0f} s after the line was back")


def waits(box: Appliance) -> dict:
    """What the box says of the release that waits in slot B while its line is out."""
    said = status(box.machine)
    assert said["slot"] == "B" and said["pending"], said
    assert said["pending"]["phase"] == "tried" and said["pending"]["now"], said["pending"]
    return said["pending"]


def a_box_whose_data_are_full_serves_and_refuses_a_release() -> None:
    """With not a byte left on the data partition a release is refused before its slot is touched, the box boots and serves, and with room again it can be asked."""
    need()
    with scratch() as folder, Releases(folder) as releases:
        board, kind = BOOTED[0]
        whole = a_copy(image(board), folder, f"{kind}.img")
        offer(board, image(board).with_suffix(".slot"), "next", folder)
        with Machine(kind, whole, folder / f"{kind}.log", reaches_host=True) as machine:
            boots(machine, "A")
            serves(machine, releases)
            machine.ask("dd if=/dev/zero of=/data/full bs=65536; dd if=/dev/zero of=/data/rest bs=512; sync", timeout_s=300)
            before = machine.ask("head -c 4096 /dev/altnet/slot-b | sha256sum")
            said = machine.ask("altnet update install --no-reboot", timeout_s=300)
            assert any("Free some room on the data partition" in line for line in said), said
            assert machine.ask("head -c 4096 /dev/altnet/slot-b | sha256sum") == before, "the slot was touched"
            assert status(machine)["next"] == "A" and status(machine)["writing"] is None
            machine.ask("reboot")
            boots(machine, "A")
            machine.open_shell()
            wait_until_all_works(machine)
            machine.ask("rm /data/full /data/rest; sync", timeout_s=120)
            said = machine.ask("altnet update check", timeout_s=120)
            assert any("newer than the release that runs" in line for line in said), said
            print(f"{kind}: with data full the release is refused, and the box boots and serves")


SCENARIOS = []
LONG = [
    a_release_that_crashes_at_boot_is_left, a_box_whose_data_are_full_serves_and_refuses_a_release, a_release_that_boots_while_the_line_is_out_waits_for_it,
]
# The network adapter on QEMU's Pi doesn't come up: it wants its bundle on the card.
UNTRIED = [a_pi_takes_a_release_goes_back_and_leaves_one_that_crashes]
