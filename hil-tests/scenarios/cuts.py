"""Power cuts at any write while a box joins, installs a release, boots it and confirms it. The machine around the box is not there."""

import base64
import hashlib
import pathlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lab import cards, cuts
from lab.altnet import altnet
from lab.cards import BOX, WORDS, Card, on_card
from lab.cuts import Cut, Rewound, Write
from lab.places import Lab, wait_for
from lab.providers import House, prepare
from lab.remains import PLACES, Remains

from .first_boot import provision
from .images import a_copy, choice, scratch
from .slots import CONFIG, Appliance

POINTS, BOOTS = 60, 4  # moments at which the power goes, each in three ways, and those after which the box begins again
MANY_POINTS, MANY_BOOTS = 300, 20
CARD_SLOT_BYTES = 4 << 20
SUPERBLOCK_BYTES = 2048  # at the beginning of the data, with what is before it
Left = tuple[Cut, pathlib.Path]  # what a power cut left, as a disk of its own


@dataclass
class Recorded:
    """What a box wrote until a release was confirmed."""

    writes: list[Write]
    member: int  # from how many writes on it is a member
    identity: bytes
    given: dict[str, bytes]
    remains: Remains
    rewound: Rewound


def power_cuts_while_a_release_is_installed_leave_a_slot_and_an_identity() -> None:
    """A box without a machine around it joins, installs a release and confirms it, and every write to its disk is recorded. As a power cut would have left that at sixty of them, a whole release is begun, and its file, its identity and what is kept of releases are there; after four of them the router and altnetd serve again."""
    on_cards(["next"], POINTS, BOOTS)


def power_cuts_at_300_writes_leave_a_slot_and_an_identity() -> None:
    """The same with four releases, one after the other, at 300 writes and with 20 boots."""
    on_cards(["second", "third", "fourth", "fifth"], MANY_POINTS, MANY_BOOTS)


def on_cards(versions: list[str], count: int, boots: int) -> None:
    """Records a box that installs these releases, and judges what power cuts would have left of it."""
    prepare()
    cards.need()
    with scratch() as folder:
        story = record(folder, versions)
        judged(story, folder, count, lambda left: came_up(story, *left), boots)


def judged(story: Recorded, folder: pathlib.Path, count: int, boot: Callable[[Left], str], boots: int, each=map) -> None:
    """Cuts the power at so many moments, in three ways, looks at what is left, boots some of it, and says how many. `each` is `map`, or one
    that does some at a time."""
    chosen = points(story.writes, story.member, count)
    to_boot = booted(story.writes, chosen, story.member, boots)
    counts, slots, left = Counter(), Counter(), []
    for after, why in chosen.items():
        for cut in ways(story.writes, after, why):
            story.rewound.cut(cut)
            found = story.remains.judge(story.rewound.changes(), story.given, story.identity, after >= story.member)
            assert not found.wrong, f"{cut} of {len(story.writes)}: {'; '.join(found.wrong)}"
            counts[cut.kind] += 1
            counts["data mended"] += found.mended
            slots[f"{found.version} in {found.slot}"] += 1
            if to_boot.get(after) == cut.kind and not cut.sectors:
                left.append((cut, a_copy(story.rewound.disk, folder, f"cut-{len(left)}.img")))
    for slot in each(boot, left):
        slots[f"booted {slot}"] += 1
    print(f"{len(story.writes)} writes and flushes, {story.member} before it was a member; cuts at {len(chosen)}: {dict(counts)}; slots that were begun: {dict(slots)}")
    assert [len(chosen), counts["whole"], counts["lost"]] == 3 * [count] and counts["torn"] > count, counts
    assert {f"{version} in {'AB'[number % 2]}" for number, version in enumerate(story.remains.releases.values())} <= set(slots), slots
    assert sum(number for name, number in slots.items() if name.startswith("booted")) == boots


def record(folder: pathlib.Path, versions: list[str]) -> Recorded:
    """Has a box that is a card in a lab join a network, and install and confirm these releases."""
    releases = {name: random.Random(name).randbytes(CARD_SLOT_BYTES - 2) for name in ("first", *versions)}
    releases = {name: content[:510] + b"\x55\xaa" + content[510:] for name, content in releases.items()}
    whole, log, config = folder / "disk.img", folder / "writes", folder / "altnet.toml"
    network(folder)
    config.write_text(CONFIG.replace("/run/altnet-state", f"{BOX}/data/altnet"))
    with Lab() as lab:

        def card(house: House) -> Card:
            cards.laid_out(whole, releases["first"], config, folder)
            return on_card(house, whole, log)

        box = Appliance(lab, card)
        first = a_copy(whole, folder, "first.img")
        with box.box:
            assert box.boot(*WORDS) == "A"
            box.house.router.run("altnet", "join", "--bundle", str(folder / "relay1.bundle"))
            settle(box)
            member = len(cuts.read(log))
            box.until_all_works()
            for number, version in enumerate(versions):
                box.install(version, 2 + number, releases[version], WORDS)
                box.until_all_works()
                last = {"slot": "BA"[number % 2], "version": version, "ended": "confirmed"}
                wait_for(f"{version} to be confirmed", lambda: (box.update("status")["last"] or {}).items() >= last.items(), timeout_s=180, every_s=1)
            identity = identity_on(box)
            box.house.router.run("sync")
            box.cut_power()
    by_hash = {hashlib.sha256(content.ljust(PLACES["slot-a"][1], b"\0")).hexdigest(): name for name, content in releases.items()}
    writes = cuts.read(log)
    remains = Remains(first, "rpi", "u-boot", PLACES["data"][1], by_hash, folder)
    return Recorded(writes, member, identity, {"altnet.toml": config.read_bytes()}, remains, Rewound(first, log, writes))


def identity_on(box: Appliance) -> bytes:
    """What makes the box the member that it is."""
    return base64.b64decode(box.house.router.run("base64", f"{BOX}/data/altnet/identity.slot").stdout)


def settle(box: Appliance) -> None:
    """Waits until altnetd has saved of its identity what it saves after it said that it joined, and until that is on the disk."""
    seen: list[bytes] = []

    def is_same() -> bool:
        seen.append(identity_on(box))
        return seen[-2:-1] == seen[-1:]

    wait_for("the identity to stay as it is", is_same, timeout_s=60, every_s=3)
    box.house.router.run("sync")


def came_up(story: Recorded, cut: Cut, whole: pathlib.Path) -> str:
    """Has the router and altnetd begin on what a power cut left; returns the slot that was begun."""
    log = whole.with_suffix(".writes")
    with Lab() as lab:
        box = Appliance(lab, lambda house: on_card(house, whole, log))
        with box.box:
            slot = box.boot(*WORDS)
            box.until_all_works()
            status = altnet(box.house.router, "status")
            if cut.after >= story.member:
                assert (status["state"], status["network"]["name"]) == ("member", "relay1"), f"{cut}: {status}"
                assert identity_on(box) == story.identity, f"{cut}: the box has another identity"
            box.cut_power()
    for file in (whole, log):
        file.unlink()
    return slot


def network(folder: pathlib.Path) -> None:
    """Makes a network, and a bundle for its first member, which can join alone."""
    (folder / "passphrase").write_text("a passphrase of a test\n")
    (folder / "passphrase").chmod(0o600)
    provision(folder, "network", "create", "home")
    provision(folder, "bundle", "--name", "relay1", "--role", "relay", "--role", "directory", "--admit", "--endpoint", "203.0.113.1:51820", "-o", "relay1.bundle")


def turning_points(writes: list[Write]) -> dict[int, str]:
    """Writes at which it is decided which slot is booted, and whether the data can be opened, by their number from 1."""
    decides = {f"copy {number} of the choice": (at, choice.SIZES["grub"]) for number, at in enumerate(choice.PLACES)}
    decides |= {f"{name}'s first sector": (PLACES[name][0], cuts.SECTOR) for name in ("slot-a", "slot-b")}
    decides["the superblock of the data"] = (PLACES["data"][0], SUPERBLOCK_BYTES)
    found = {}
    for number, write in enumerate(writes):
        for why, place in decides.items():
            if write.touches(*place):
                found[number + 1] = why
    return found


def points(writes: list[Write], member: int, count: int) -> dict[int, str]:
    """The moments at which the power goes, in their order, with what happens there: each write that decides, the one before
    and the one after it, and as many others as there are left, evenly."""
    decided = turning_points(writes)
    found = {near: f"{('before', 'at', 'after')[near - number + 1]} {why}" for number, why in decided.items() for near in (number - 1, number + 1, number) if 0 < near <= len(writes)}
    others = [number + 1 for number, write in enumerate(writes) if write.length and number + 1 not in found]
    left = count - len(found)
    assert 0 < left <= len(others), f"{len(found)} moments of {len(decided)} writes that decide, and {len(others)} others"
    for number in (others[at * len(others) // left] for at in range(left)):
        found[number] = "the first boot" if number < member else where(writes[number - 1])
    return dict(sorted(found.items()))


def ways(writes: list[Write], after: int, why: str) -> list[Cut]:
    """How the power goes at a moment. The superblock of the data is torn at each of its sectors."""
    cuts_ = [Cut(after, kind, why) for kind in ("whole", "torn", "lost")]
    last = writes[after - 1]
    if last.touches(PLACES["data"][0], SUPERBLOCK_BYTES):
        cuts_ += [Cut(after, "torn", why, sectors) for sectors in range(1, last.length // cuts.SECTOR)]
    return cuts_


def where(write: Write) -> str:
    """What a write is of."""
    return next((name for name, place in PLACES.items() if write.touches(*place)), "the table")


def booted(writes: list[Write], chosen: dict[int, str], member: int, count: int) -> dict[int, str]:
    """The moments after which the box is booted, and how the power went: half of them writes that decide, torn; then others, with lost ones."""
    decided = [number for number, why in turning_points(writes).items() if number >= member and "superblock" not in why]
    found = {number: "torn" for number in decided[: count // 2]}
    others = [number for number in chosen if number not in found]
    left = count - len(found)
    return found | {others[(2 * at + 1) * len(others) // (2 * left)]: "lost" for at in range(left)}


def a_disk_is_rewound_to_any_write() -> None:
    """By a record that is made up: a disk after a power cut has what was flushed, of the rest what it may have, and nothing of the cut before."""
    chance = random.Random(5)
    with scratch() as folder:
        disk, log = folder / "disk", folder / "writes"
        entries = [(chance.randrange(60), 0 if number % 7 == 6 else chance.randrange(1, 5)) for number in range(70)]
        contents = [bytes([number % 250 + 1]) * (sectors * cuts.SECTOR) for number, (_, sectors) in enumerate(entries)]
        pieces = [cuts.SUPERBLOCK.pack(cuts.MAGIC, cuts.VERSION, len(entries), cuts.SECTOR)]
        for (first, sectors), content in zip(entries, contents):
            pieces += [cuts.ENTRY.pack(first * bool(sectors), sectors, 0 if sectors else cuts.FLUSH, 0), content]
        log.write_bytes(b"".join(piece.ljust(-len(piece) // cuts.SECTOR * -cuts.SECTOR, b"\0") for piece in pieces))
        disk.write_bytes(bytes(64 * cuts.SECTOR))
        rewound = Rewound(disk, log, cuts.read(log))
        differs = Counter()
        for after in range(len(entries) + 1):
            flushed = cuts.flushed_before(rewound.writes, after)
            before, whole = replayed(entries, contents, flushed), replayed(entries, contents, after)
            for kind in ("whole", "torn", "lost"):
                rewound.cut(Cut(after, kind))
                found = disk.read_bytes()
                if kind == "whole":
                    assert found == whole, f"after {after}"
                    continue
                differs[kind] += found != whole
                # Each byte is what was flushed, or of a write since.
                for sector in range(len(found) // cuts.SECTOR):
                    span = slice(sector * cuts.SECTOR, (sector + 1) * cuts.SECTOR)
                    since = {contents[n][0] for n in range(flushed, after) if contents[n] and entries[n][0] <= sector < sum(entries[n])}
                    assert set(found[span]) <= since | set(before[span]), f"{kind} after {after}, sector {sector}"
        assert min(differs["torn"], differs["lost"]) > 40, differs
        for damage in (b"", log.read_bytes()[:-600], bytes(4096), log.read_bytes()[:512] + b"\xff" * 512):
            (folder / "damaged").write_bytes(damage)
            try:
                cuts.read(folder / "damaged")
                raise AssertionError(f"a record of {len(damage)} bytes was read")
            except cuts.NoRecord:
                pass
        print(f"{3 * (len(entries) + 1)} cuts of a disk, of which {sum(differs.values())} lost something")


def replayed(entries: list[tuple[int, int]], contents: list[bytes], count: int) -> bytes:
    """A disk after so many entries."""
    disk = bytearray(64 * cuts.SECTOR)
    for (first, _), content in zip(entries[:count], contents):
        disk[first * cuts.SECTOR : first * cuts.SECTOR + len(content)] = content
    return bytes(disk)


SCENARIOS = [a_disk_is_rewound_to_any_write, power_cuts_while_a_release_is_installed_leave_a_slot_and_an_identity]
LONG = [power_cuts_at_300_writes_leave_a_slot_and_an_identity]
