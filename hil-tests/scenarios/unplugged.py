"""Power cuts of a whole machine, from its first boot to the confirmation of a release, of which every write to its disk was recorded."""

import base64
import concurrent.futures
import hashlib
import json
import pathlib
import re
import time

from lab import boxes, cuts
from lab.altnet import build_binaries
from lab.cuts import Cut, Rewound
from lab.machines import Machine, need
from lab.places import wait_for
from lab.remains import PLACES, Remains

from .cuts import MANY_BOOTS, MANY_POINTS, Left, Recorded, judged, network
from .first_boot import provision
from .images import BOOTED, Releases, a_copy, another_slot, boots, confirmed, image, installed, offer, report, scratch, wait_until_all_works

BOARD, KIND = BOOTED[0]
AT_ONCE = 2  # machines that are booted
# What a machine may take to be a member again, and all of it together.
MEMBER_S, LONGEST_S = 300, 5400


def power_cuts_of_a_machine_leave_a_slot_and_an_identity() -> None:
    """A machine with the image for ARM takes its files at its first boot, joins, installs a release, boots and confirms it, and every write of its boot loader, its kernel and our programs is recorded. As a power cut would have left its disk at 300 of them, a whole release is begun, and its files, its identity and what is kept of releases are there; twenty such machines boot and are the members that they were."""
    need()
    build_binaries()
    began = time.monotonic()
    with scratch() as folder:
        story = record(folder)
        print(f"recorded in {time.monotonic() - began:.0f} s")

        def boot(left: Left) -> str:
            assert time.monotonic() < began + LONGEST_S, f"it takes more than {LONGEST_S} s"
            return came_up(story, *left)

        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            judged(story, folder, MANY_POINTS, boot, MANY_BOOTS, pool.map)


def record(folder: pathlib.Path) -> Recorded:
    """Has a machine do all that."""
    whole, first, log, offered = folder / "disk.img", image(BOARD).with_suffix(".slot"), folder / "writes", folder / "releases"
    offered.mkdir()
    network(folder)
    with Releases(offered) as releases:
        for name, text in (("altnet.toml", releases.config), ("release-keys", boxes.keys("rule adds")), ("hostname", "relay1\n")):
            (folder / name).write_text(text)
        made = provision(
            folder, "image", "customize", f"{image(BOARD)}.zst", "--bundle", "relay1.bundle", "--config", "altnet.toml", "--hostname", "relay1",
            "--release-keys", "release-keys", "-o", str(whole),
        )
        following = another_slot(first, folder, "next")
        offer(BOARD, following, "next", offered)
        before = a_copy(whole, folder, "first.img")
        with Machine(KIND, whole, folder / "console.log", reaches_host=True, record=log) as machine:
            boots(machine, "A")
            machine.once("joined as relay1", timeout_s=MEMBER_S)
            machine.open_shell()
            identity = settled(machine)
            member = len(cuts.read(log))
            wait_until_all_works(machine)
            installed(machine)
            boots(machine, "B")
            confirmed(machine)
            assert identity_on(machine) == identity, "the identity changed with the release"
            machine.ask("sync")
    writes = cuts.read(log)
    given = {name: (folder / {"first-boot.bundle": "relay1.bundle"}.get(name, name)).read_bytes() for name in made["first_boot"]}
    releases_by_hash = {hashlib.sha256(slot.read_bytes()).hexdigest(): name for name, slot in ((report(BOARD)["version"], first), ("next", following))}
    assert made["data_bytes"] == PLACES["data"][1] and len(given) == 4 and len(releases_by_hash) == 2, made
    remains = Remains(before, BOARD, "u-boot", made["data_bytes"], releases_by_hash, folder)
    return Recorded(writes, member, identity, given, remains, Rewound(before, log, writes))


def identity_on(machine: Machine) -> bytes:
    """What makes the box the member that it is."""
    return base64.b64decode("".join(machine.ask("base64 /data/altnet/identity.slot")))


def settled(machine: Machine) -> bytes:
    """The identity, once altnetd has saved of it what it saves after it said that it joined, and that is on the disk."""
    seen: list[bytes] = []

    def is_same() -> bool:
        seen.append(identity_on(machine))
        return seen[-2:-1] == seen[-1:]

    wait_for("the identity to stay as it is", is_same, timeout_s=120, every_s=3)
    machine.ask("sync")
    return seen[-1]


def came_up(story: Recorded, cut: Cut, whole: pathlib.Path) -> str:
    """Boots what a power cut left; returns the slot that was begun. Who wasn't a member becomes one by its bundle."""
    with Machine(KIND, whole, whole.with_suffix(".log"), reaches_host=True) as machine:
        [slot] = re.findall("slot ([AB]) is mounted", machine.until("is mounted at"))
        machine.until("altnetd answers")
        machine.until(f"slot {slot} is looked after")
        machine.open_shell()
        is_member = wait_for(f"{cut}: the box to be a member", lambda: membership(machine), timeout_s=MEMBER_S, every_s=3)
        assert is_member["name"] == "relay1", f"{cut}: {is_member}"
        if cut.after >= story.member:
            assert identity_on(machine) == story.identity, f"{cut}: the box has another identity"
    whole.unlink()
    return slot


def membership(machine: Machine) -> dict | None:
    """What the box says of its network, once it is in one."""
    try:
        said = json.loads(" ".join(machine.ask("altnet status --json")))
    except ValueError:  # altnetd doesn't answer yet, or something else was said meanwhile
        return None
    return said["network"] if said["state"] == "member" else None


SCENARIOS = []
UNTRIED = [power_cuts_of_a_machine_leave_a_slot_and_an_identity]
