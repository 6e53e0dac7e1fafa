"""Boxes that begin anew, or are helped over their LAN; and what a full disk or used up memory costs. See firmware/docs/adr/0029-beginning-anew.md."""

import json
import pathlib
import re
import shutil
import subprocess
import threading
import time

from lab import boxes, network, providers
from lab.altnet import BINARIES, ROOT, SHELL, Story, altnet, build_binaries
from lab.appliances import Appliance, need
from lab.machines import Machine
from lab.places import CannotRunHere, Lab, LabError, Place, wait_for
from lab.providers import Household, Provider

from .images import BOOTED, a_copy, boards, boots, choice, copies, disk, held_by, image, onto_data, put, root, scratch

BOARD, KIND = BOOTED[0]
PAGE = "192.168.1.1"
SECRET = "what-nobody-else-may-know"
# Longer than a button is held for a reset.
HELD_S = 60


def a_reset_box_comes_up_as_new() -> None:
    """By its command and by its button a box loses its name, its file and all else on its data, and keeps its slots; held at power-on, the button brings rescue, from which it boots again."""
    need()
    with scratch() as folder:
        whole = a_copy(image(BOARD), folder, "disk.img")
        slots = held_by(whole, "slot-a"), held_by(whole, "slot-b")
        with Machine(KIND, whole, folder / "console.log", keyboard=True) as machine:
            boots(machine, "A")
            used(machine)
            machine.ask("altnet reset --yes --no-reboot; sync")
            assert SECRET.encode() in held_by(whole, "data")
            machine.ask("reboot")
            is_new(machine, whole)
            used(machine)
            machine.hold(True)
            machine.until("everything on this box is wiped, because its button was held", timeout_s=HELD_S)
            machine.hold(False)
            is_new(machine, whole)
            assert choice.current(copies(whole, boards.load(BOARD).loader)).tries_a == choice.MOST_TRIES

            machine.ask("sync; (sleep 1; reboot -f) & true")
            stop = threading.Event()
            # What is held before its driver listens, it doesn't hear of; who holds a key says so again and again.
            holding = threading.Thread(target=lambda: [machine.hold(True) for _ in iter(lambda: stop.wait(0.1), True)])
            holding.start()
            machine.until("rescue: its button was held", timeout_s=180)
            stop.set()
            holding.join()
            machine.hold(False)
            machine.until(f"rescue: the page is http://{PAGE}/")
            tries = wait_for("its tries to be given back", lambda: choice.current(copies(whole, boards.load(BOARD).loader)).tries_a == 3, 60, 1)
            print(f"rescue by the button costs no try: {tries}")
        assert (held_by(whole, "slot-a"), held_by(whole, "slot-b")) == slots, "a reset changed a slot"
        with Machine(KIND, whole, folder / "console.log") as machine:
            boots(machine, "A")


def used(machine: Machine) -> None:
    """Leaves traces of an owner on a box."""
    machine.open_shell()
    machine.ask(f"echo {SECRET} >/data/etc/hostname; echo '# {SECRET}' >>/data/etc/altnet.toml; cp /data/etc/hostname /data/altnet/; sync")


def is_new(machine: Machine, whole: pathlib.Path) -> None:
    """Holds a box to boot as it did when it was new, and its disk to have nothing of its owner."""
    for stage in ("altnet: slot A is mounted", "a factory reset: the data are wiped", "this box is as new", "altnetd answers", "slot A is looked after"):
        machine.until(stage)
    machine.open_shell()
    assert machine.ask("hostname") == ["altnet"]
    assert machine.ask("cat /data/etc/altnet.toml") == ["[router]"]
    machine.ask("sync")
    assert SECRET.encode() not in held_by(whole, "data"), "the disk still has what was wiped"


def a_box_without_a_root_is_rescued_over_its_lan() -> None:
    """Neither slot has a root that can be read: the box routes nothing, gives addresses out, says what is wrong, refuses what isn't signed enough, and boots the release that `altnet-provision rescue` brings it."""
    need()
    build_binaries()
    with scratch() as folder, Lab() as lab:
        whole = a_copy(image(BOARD), folder, "disk.img")
        onto_data(whole, folder, {"release-keys": boxes.keys("rule adds"), "hostname": "kept\n"})
        good = boxes.slot_of(image(BOARD))
        for name in ("slot-a", "slot-b"):
            at = next(at for part, at, _ in disk.partitions() if part == name)
            super_block = next(found.start() for found in re.finditer(rb"hsqs", good) if found.start() % disk.SECTOR == 0)
            put(whole, at + super_block, bytes(disk.SECTOR))
        bundles = {"good": boxes.bundle(BOARD, good, "next", int(time.time())), "forged": boxes.bundle(BOARD, good, "next", int(time.time()), boxes.SEEDS[:1])}
        with Appliance(lab, Provider(lab), KIND, whole) as box:
            for name, data in bundles.items():
                (box.client.folder / f"{name}.bundle").write_bytes(data)
            box.switch_on()
            box.machine.until("rescue: slot A has no root that can be read, and the other slot has no root that can be read")
            box.machine.until(f"rescue: the page is http://{PAGE}/")
            address = box.lease()
            assert address.startswith("192.168.1."), address
            told = rescue(box)
            assert told["state"] == "rescue" and told["slot"] == "A" and "no root" in told["why"], told
            assert any("rescue: slot A has no root" in line for line in told["log"]), told["log"]
            page = box.client.run("curl", "--silent", "--fail", "--max-time", "20", f"http://{PAGE}/").stdout
            assert "This box needs help" in page and "<form" in page, page
            assert not box.fetch(4, check=False), "a box in rescue routes"

            refused = box.client.run("altnet-provision", "rescue", "--bundle", "forged.bundle", "--json", check=False, timeout_s=600)
            assert refused.returncode and "signatures" in refused.stdout + refused.stderr, refused
            began = time.monotonic()
            rescue(box, "--bundle", "good.bundle")
            print(f"{len(bundles['good'])} bytes were brought in {time.monotonic() - began:.0f} s")
            boots(box.machine, "B")
            box.machine.open_shell()
            assert box.machine.ask("cat /data/etc/hostname") == ["kept"], "rescue cost the box its data"


def rescue(box: Appliance, *words: str) -> dict:
    """What `altnet-provision rescue` says on the client."""
    done = box.client.run("altnet-provision", "rescue", *words, "--json", check=False, timeout_s=900)
    if done.returncode:
        raise LabError(f"altnet-provision rescue: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


# Who the box is; the audit log beside it grows as long as its last block has room.
KEPT = "sha256sum /data/altnet/*.slot"


def a_full_disk_and_used_up_memory_harm_nothing() -> None:
    """With data full the box serves, refuses a new file clearly and keeps its identity through a restart; with memory used up helpers go before altnetd and the router, and all run again."""
    need()
    with scratch() as folder:
        whole = a_copy(image(BOARD), folder, "disk.img")
        with Machine(KIND, whole, folder / "console.log", memory_mb=128) as machine:
            boots(machine, "A")
            machine.open_shell()
            machine.ask("until altnet-routerd status >/dev/null 2>&1; do sleep 1; done; sync")
            identity = machine.ask(KEPT)
            machine.ask("dd if=/dev/zero of=/data/fill bs=65536; dd if=/dev/zero of=/data/fill2 bs=512; sync", timeout_s=300)
            machine.ask("cp /data/etc/altnet.toml /tmp/new.toml; for n in $(seq 2000); do echo \"# $n\"; done >>/tmp/new.toml")
            said = " ".join(machine.ask("altnet config apply /tmp/new.toml"))
            assert "No space left" in said or "os error 28" in said, said
            assert machine.ask("cat /data/etc/altnet.toml") == ["[router]"]
            machine.ask("killall altnetd altnet-routerd; sleep 5")
            machine.ask("until altnet status >/dev/null 2>&1 && altnet-routerd status >/dev/null 2>&1; do sleep 1; done", timeout_s=120)
            found = machine.ask(KEPT)
            assert found == identity, f"the identity was {identity} and is {found}"
            machine.ask("rm /data/fill /data/fill2; sync")
            print("a full disk: the file was refused, both programs came back, the identity is the same")

            scores = {name: int(machine.ask(f"cat /proc/$(pidof {name} | cut -d' ' -f1)/oom_score_adj")[-1]) for name in ("altnet-routerd", "altnetd", "dnsmasq")}
            assert scores["altnet-routerd"] < scores["altnetd"] < 0 < scores["dnsmasq"], scores
            # A program that takes all there is goes itself, and nobody else of importance. Then as if it had been a little of everybody's.
            machine.ask("dmesg -c >/dev/null; (b=$(head -c 1048576 /dev/zero | tr '\\0' x); x=; while :; do x=$x$b; done)", timeout_s=600)
            machine.ask("for n in 1 2 3; do echo f >/proc/sysrq-trigger; sleep 2; done", timeout_s=120)
            killed = [re.search(r"\((\S+)\)", line)[1] for line in machine.ask("dmesg | grep -o 'Killed process.*'")]
            assert len(killed) >= 4 and not {"altnetd", "altnet-routerd"} & set(killed), killed
            machine.ask("until [ $(altnet-routerd --json status | grep -o '\"state\":\"runs\"' | wc -l) -ge 2 ]; do sleep 1; done", timeout_s=180)
            print(f"memory used up: {', '.join(killed)} ended, and run again")


def a_gateway_with_a_full_disk_stays_who_it_is() -> None:
    """A gateway's disk is full: it carries its house on, says what it can't keep, is the same member after a restart, and rotates its keys once there is room."""
    with Lab() as lab:
        story = Story(lab)
        gateway, kept = story.internet.b.gateway, "/var/lib/altnet"
        gateway.run("mkdir", "-p", kept)
        gateway.run("mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "disk", kept)
        story.tell()
        story.fetch()
        before = altnet(gateway, "status")["network"]
        gateway.run(*SHELL, f"dd if=/dev/zero of={kept}/fill bs=4096 2>/dev/null || true")
        said = gateway.run("altnet", "rotate", check=False)
        assert said.returncode and "space" in said.stderr.lower(), f"rotating with a full disk: {said.returncode} {said.stdout}{said.stderr}"
        print(said.stderr.strip())
        assert story.fetch(), "no page with a full disk"
        story.stop(gateway)
        story.start(gateway)
        assert altnet(gateway, "status")["network"]["member"] == before["member"], "the member became another"
        assert story.fetch(), "no page after a restart with a full disk"
        gateway.run("rm", f"{kept}/fill")
        wait_for("keys to rotate once there is room", lambda: gateway.run("altnet", "rotate", check=False).returncode == 0, timeout_s=30, every_s=1)
        assert altnet(gateway, "status")["network"]["tunnel_epoch"] > before["tunnel_epoch"]
        assert story.fetch()


# What the initial RAM disk's script finds besides in a place of a lab: no console, no modules, no lights, and nothing that boots.
AROUND = {"udhcpd": 'exec busybox udhcpd "$@"', "modprobe": "exit 0", "altnet-led": "exit 0", "reboot": ": >rebooted; exec sleep infinity"}


# The same for init, in a folder that is its whole world. What has a file beside it with that ending can be mounted.
STUBS = {
    "modprobe": "exit 0", "altnet-rescue": "[ -e /held ]", "reboot": "echo boots again >>/told; kill $PPID", "umount": "rm -rf /root/sbin; [ $1 != /run/altnet/boot ] || rm -rf /run/altnet/boot",
    "switch_root": "echo hands over >>/told",
    "mount": """case "$*" in
*vfat*/dev/altnet/boot*) mkdir -p /run/altnet/boot; cp -r /card/. /run/altnet/boot ;;
*vfat*) for word; do case $word in /dev/*) device=$(readlink -f $word) ;; esac; done; echo $device >/device; [ -e $device.vfat ] ;;
*squashfs*) [ -e $(cat /device).squashfs ] && mkdir -p /root/sbin && ln -s /bin/sh /root/sbin/init ;;
esac""",
}
OWN, OTHER = "has no root that can be read", "has no file system"
# What of the slots can be mounted, what else there is, the slot that the loader chose; and what becomes of it.
WAYS = [
    (("sda2.vfat", "sda2.squashfs"), (), "A", "hands over"),
    (("sda3.vfat", "sda3.squashfs"), (), "B", "hands over"),
    (("sda2.vfat", "sda3.vfat", "sda3.squashfs"), (), "A", "boots again"),
    (("sda2.vfat", "sda2.squashfs"), (), "B", "boots again"),
    (("sda2.vfat", "sda3.vfat"), (), "A", f"rescue slot A {OWN}, and the other slot {OWN}"),
    (("sda3.vfat",), (), "B", f"rescue slot B {OWN}, and the other slot {OTHER}"),
    ((), (), "A", f"rescue slot A {OTHER}, and the other slot {OTHER}"),
    (("sda2.vfat", "sda2.squashfs"), ("card/altnet/rescue",), "A", "rescue its card has a file altnet/rescue; remove that to have it boot again --asked-for"),
    (("sda2.vfat", "sda2.squashfs"), ("held",), "A", "rescue its button was held when it was switched on --asked-for"),
]


def the_initial_ram_disk_finds_its_way() -> None:
    """Init, with busybox in a folder that is all it sees: it hands over to a root that can be mounted, boots again if the other slot's can, and becomes rescue if neither can or a person beside it says so."""
    prepare()
    with Lab() as lab:
        place = lab.place("box")
        for number, (slots, others, slot, expected) in enumerate(WAYS):
            world = place.folder / str(number)
            files = {
                "proc/cmdline": f"quiet altnet.slot={slot}\n", "proc/uptime": "1.00 1.00\n", "dev/console": "", "etc/modules": "\n", "etc/altnet/board.env": 'BUTTON="116"\n',
                "etc/rescue": 'rescue() { echo "rescue $*" >>/told; exit 0; }\n', "told": "", "card/altnet/notes": "",
                **{f"dev/{name}": "" for name in slots}, **{name: "" for name in others},
                **{f"sys/devices/sda/sda{part}/partition": f"{part}\n" for part in range(1, 5)},
                **{f"dev/sda{part}": "\0" * 43 + "ALTNET SLOT" for part in range(1, 5)},
            }
            for name, text in files.items():
                (world / name).parent.mkdir(parents=True, exist_ok=True)
                (world / name).write_text(text)
            for folder in ("bin", "run", "root", "sys/class/block"):
                (world / folder).mkdir(parents=True)
            for name in ("sda", *(f"sda{part}" for part in range(1, 5))):
                (world / "sys/class/block" / name).symlink_to(f"../../devices/sda/{name}" if name != "sda" else "../../devices/sda")
            shutil.copy("/bin/busybox", world / "bin/busybox")
            for name in root.INITRD_APPLETS:
                if name not in STUBS:
                    (world / "bin" / name).symlink_to("busybox")
            for name, text in STUBS.items():
                (world / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
                (world / "bin" / name).chmod(0o755)
            shutil.copy(ROOT / "linux-image/initrd/init", world / "init")
            place.run("chroot", str(world), "/bin/sh", "/init", check=False)
            told = (world / "told").read_text().strip()
            console = (world / "dev/console").read_text()
            assert told == expected, f"slot {slot} with {slots} and {others}: {told!r}\n{console}"
        print(f"{len(WAYS)} ways, each as it should be")


def a_box_in_rescue_is_helped_over_its_lan() -> None:
    """The script of the initial RAM disk, on a box of files: it gives addresses out, its page says what is wrong at both kinds of address, a release that one key signed is refused, one that two signed is in the other slot, and it boots."""
    prepare()
    with Lab() as lab:
        house, place = Household(lab), lab.place("box")
        lab.environment["PATH"] = f"{BINARIES}:/usr/sbin:/usr/bin:/sbin:/bin"
        network.cable(place, "lan1", house.client, "eth0")
        box = boxes.Box(place.folder / "box")
        box.put("run/altnet/slot", b"A")
        for name, text in AROUND.items():
            box.put(f"bin/{name}", f"#!/bin/sh\n{text}\n".encode()).chmod(0o755)
        for name, signers in (("good", boxes.SEEDS[:2]), ("forged", boxes.SEEDS[:1])):
            (house.client.folder / f"{name}.bundle").write_bytes(boxes.bundle(box.board, boxes.slot(2), "0.2.0", 2, signers))
        script = f'say() {{ echo "$*"; }}; LAN=lan1 BUTTON= ROOT={box.root} CONSOLE=/dev/null KMSG=/dev/null PATH={box.root}/bin:$PATH; . {ROOT}/linux-image/initrd/rescue; rescue "$1"'
        place.start("sh", "-c", script, "sh", "neither slot has a root", log="rescue.log")
        address = house.lease()
        assert address.startswith("192.168.1."), address

        told = ask_rescue(house.client)
        assert (told["state"], told["slot"], told["why"]) == ("rescue", "A", "neither slot has a root"), told
        [bridge] = json.loads(place.ip("-j", "-6", "address", "show", "dev", "rescue", "scope", "link"))
        near = next(entry["local"] for entry in bridge["addr_info"])
        assert ask_rescue(house.client, f"{near}%eth0")["slot"] == "A"
        page = house.client.run("curl", "--silent", "--fail", f"http://{PAGE}/").stdout
        assert "This box needs help" in page and "neither slot has a root" in page, page
        assert not house.client.run("ip", "-4", "route", "show", "default").stdout, "a box that routes nothing says that it is a router"

        slot_b = box.root / "dev/altnet/slot-b"
        before = slot_b.read_bytes()
        refused = house.client.run("altnet-provision", "rescue", "--bundle", "forged.bundle", "--json", check=False)
        assert refused.returncode and "1 of the 2 signatures" in refused.stdout + refused.stderr, refused
        assert slot_b.read_bytes() == before and not (place.folder / "rebooted").exists()
        said = ask_rescue(house.client, "--bundle", "good.bundle")
        print(f"{address}: {said['installed']}")
        wait_for("it to boot again", (place.folder / "rebooted").exists)
        assert slot_b.read_bytes() == boxes.slot(2) and box.choice() == "BA33", box.choice()


def prepare() -> None:
    """Builds our programs, and fetches others'."""
    providers.prepare()
    if subprocess.run([ROOT / "ci/install", "rescue"]).returncode:
        raise CannotRunHere("busybox could not be had")


def ask_rescue(place: Place, *words: str) -> dict:
    """What `altnet-provision rescue` says at a place."""
    return json.loads(place.run("altnet-provision", "rescue", *words, "--json", timeout_s=120).stdout)


SCENARIOS = [the_initial_ram_disk_finds_its_way, a_box_in_rescue_is_helped_over_its_lan, a_gateway_with_a_full_disk_stays_who_it_is]
LONG = [a_reset_box_comes_up_as_new, a_box_without_a_root_is_rescued_over_its_lan, a_full_disk_and_used_up_memory_harm_nothing]
