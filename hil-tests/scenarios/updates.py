"""Releases on booted images: one that crashes, and a box without room."""

import json
import pathlib
import time

from lab import boxes
from lab.machines import Machine, need

from .images import BOOTED, Releases, a_copy, another_slot, boards, boots, choice, copies, image, installed, scratch, serves


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
        crashing = another_slot(image(board).with_suffix(".slot"), folder, "crashing", crashes)
        (folder / f"{board}.bundle").write_bytes(boxes.bundle(board, crashing.read_bytes(), "crashing", int(time.time())))
        with Machine(kind, whole, folder / f"{kind}.log", reaches_host=True) as machine:
            boots(machine, "A")
            serves(machine, releases)
            installed(machine)
            began = time.monotonic()
            crashed_thrice(machine)
            print(f"{kind}: crashed three times, and was left after {time.monotonic() - began:.0f} s")
            assert choice.current(copies(whole, boards.load(board).loader)).order == "AB"


def a_box_whose_data_are_full_serves_and_refuses_a_release() -> None:
    """With not a byte left on the data partition a release is refused before its slot is touched, the box boots and serves, and with room again it can be asked."""
    need()
    with scratch() as folder, Releases(folder) as releases:
        board, kind = BOOTED[0]
        whole = a_copy(image(board), folder, f"{kind}.img")
        (folder / f"{board}.bundle").write_bytes(boxes.bundle(board, boxes.slot_of(image(board)), "next", int(time.time())))
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


def wait_until_all_works(machine: Machine) -> None:
    """Waits until the internet, names and the house's side work."""
    deadline = time.monotonic() + 300
    while (look := " ".join(machine.ask("altnet-routerd look"))).count('"works"') != 3:
        assert time.monotonic() < deadline, f"not everything works: {look}"
        time.sleep(2)


SCENARIOS = []
LONG = [a_release_that_crashes_at_boot_is_left, a_box_whose_data_are_full_serves_and_refuses_a_release]
