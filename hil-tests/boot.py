"""How long a disk image takes until it serves a house, and what it takes of a small box: called by `ci/bench boot`.

How it is measured stands in ci/bench.md.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab.altnet import PYTHON, ROOT  # noqa: E402
from lab.appliances import PATIENCE_S, Appliance, need  # noqa: E402
from lab.places import Lab  # noqa: E402
from lab.providers import SITE4, Provider  # noqa: E402
from scenarios.appliance import APP, joined, switched_on  # noqa: E402
from scenarios.images import BOOTED, a_copy, boots, report, scratch  # noqa: E402

AIMS = {"lan_ms": 3000, "ram_used_bytes": 64_000_000, "flash_written_per_day_bytes": 1_000_000}
FACTS = ("kernel_ms", "lan_ms", "wan_ms", "private_page_ms", "ram_used_bytes", "flash_written_per_day_bytes")
GUEST_MB = {"arm64-u-boot": 128}  # GRUB wants the 256 that others have
# Until what a boot leaves to be written is written.
SETTLE_S, DAY_S = 120, 86_400
SECTOR_BYTES = 512  # of /sys/block/*/stat, whatever the disk's are

# In the house, from before the box is switched on: asks ten times a second for the address that it had, then for a page on the internet, then
# for one of the private network; says when each came.
WATCH = """
import http.client, random, socket, struct, subprocess, sys, time
interface, address, site, private = sys.argv[1:]
mac = bytes.fromhex(open(f"/sys/class/net/{interface}/address").read().strip().replace(":", ""))
def said(what):
    print(what, time.monotonic(), flush=True)
def granted():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        asking.bind(("", 68))
        asking.settimeout(0.1)
        number = random.randbytes(4)
        # RFC 2131 sections 2 and 4.3.2, INIT-REBOOT; RFC 2132: REQUEST, and the address. The answer is wanted by broadcast.
        head = struct.pack("!4B4sHH16x6s202x", 1, 1, 6, 0, number, 0, 0x8000, mac)
        question = head + bytes.fromhex("638253633501033204") + socket.inet_aton(address) + b"\\xff" + bytes(60)
        while True:
            began = time.monotonic()
            try:
                asking.sendto(question, ("255.255.255.255", 67))
                answer = asking.recv(2048)
                if answer[4:8] == number and answer[240:243] == bytes.fromhex("350105"):
                    return
            except OSError:
                pass
            time.sleep(max(0, began + 0.1 - time.monotonic()))
def page(host):
    while True:
        began = time.monotonic()
        connection = http.client.HTTPConnection(host, timeout=1)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(max(0, began + 0.1 - time.monotonic()))
granted()
said("lan_ms")
router = address.rsplit(".", 1)[0] + ".1"
for words in (f"address replace {address}/24 dev {interface}", f"route replace default via {router}"):
    subprocess.run(["ip", *words.split()], check=True)
with open("/etc/resolv.conf", "w") as file:
    file.write(f"nameserver {router}\\noptions timeout:1 attempts:1\\n")
page(site)
said("wan_ms")
page(private)
said("private_page_ms")
"""


def main() -> int:
    words = argparse.ArgumentParser(prog="ci/bench boot", description="Boots disk images as gateways, and says what that takes.")
    words.add_argument("boards", nargs="*", metavar="BOARD")
    words.add_argument("--json", action="store_true")
    words.add_argument("--minutes", type=int, default=60, metavar="N", help="how long to count what is written; altnetd saves some things once an hour [60]")
    said = words.parse_args()
    need()
    boards = said.boards or sorted(path.parent.name for path in (ROOT / "board-support/linux").glob("*/board.toml"))
    found = [measured(board, 60 * said.minutes) for board in boards]
    if said.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(f"{facts['image']}: {name} {value}" for facts in found for name, value in facts.items() if name != "image"))
    print(f"aim: {', '.join(f'{name} at most {most:,}' for name, most in AIMS.items())}", file=sys.stderr)
    return int(any(facts[name] is not None and facts[name] > most for facts in found for name, most in AIMS.items()))


def measured(board: str, quiet_s: int) -> dict:
    """What is measured of a board's image; None where nothing can be, with the reason in `absent`."""
    built = report(board)
    kinds = [kind for name, kind in BOOTED if name == board]
    facts = booted(pathlib.Path(built["image"].removesuffix(".zst")), kinds[0], quiet_s) if kinds else {}
    why = f"it didn't come within {PATIENCE_S} s" if kinds else f"there is no emulated machine with the network ports of {board}"
    absent = {name: why for name in FACTS if name not in facts}
    return {"image": board, **{name: facts.get(name) for name in FACTS}, "image_bytes": built["image_bytes"], "absent": absent}


def booted(image: pathlib.Path, kind: str, quiet_s: int) -> dict:
    """Has an image join a network, and then measures its next boot."""
    with scratch() as folder, Lab() as lab, Appliance(lab, Provider(lab), kind, a_copy(image, folder, "disk.img"), GUEST_MB.get(kind, 0)) as box:
        switched_on(box)
        address = box.lease()
        joined(box)
        box.machine.ask("sync")
        box.cut_power()
        box.forget()
        watching = box.client.start(PYTHON, "-c", WATCH, "eth0", address, SITE4, APP, log="watch.log")
        box.switch_on()
        boots(box.machine, "A")
        box.machine.open_shell()
        try:
            watching.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            watching.kill()
        [kernel] = box.machine.ask("dmesg | grep -o '.*Run /init'")
        kernel_ms = round(1000 * float(kernel.strip("[ ").split("]")[0]))
        came = (line.split() for line in (lab.dir / "watch.log").read_text().splitlines())
        facts = {words[0]: round(1000 * box.machine.uptime_s(float(words[1]))) - kernel_ms for words in came}
        return {"kernel_ms": kernel_ms, **facts, **at_rest(box, quiet_s)}


def at_rest(box: Appliance, quiet_s: int) -> dict:
    """What a box that serves takes of its memory, and writes to its disk."""
    time.sleep(SETTLE_S)
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in box.machine.ask("grep ^Mem /proc/meminfo")}
    before, began = written(box), time.monotonic()
    time.sleep(quiet_s)
    after, took = written(box), time.monotonic() - began
    return {"ram_used_bytes": memory["MemTotal"] - memory["MemAvailable"], "flash_written_per_day_bytes": round((after - before) * DAY_S / took)}


def written(box: Appliance) -> int:
    """Bytes that a box wrote to its disk so far, with what was due to be."""
    # Documentation/block/stat.rst: the seventh number is sectors written.
    [said] = box.machine.ask("sync; cat /sys/block/$(readlink -f /dev/altnet/disk | xargs basename)/stat")
    return int(said.split()[6]) * SECTOR_BYTES


if __name__ == "__main__":
    sys.exit(main())
