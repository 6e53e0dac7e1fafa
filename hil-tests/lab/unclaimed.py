"""A box that is in no network, and its console: altnetd and altnet-setup as an image's init starts them."""

import json
import re
import subprocess
import time

from . import network
from .altnet import ROOT, TARGET, Story
from .places import CannotRunHere, LabError, Place, wait_for

PEER = ROOT / "hil-tests/peers/claim.py"
PYTHON = TARGET / "ci-tools/venv/bin/python"
FIRST_BOOT = ROOT / "linux-image/root/usr/sbin/altnet-first-boot"
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LAN = "lan"


def prepare() -> None:
    """Fetches who claims boxes by other people's code."""
    if subprocess.run([ROOT / "ci/install", "claim"]).returncode:
        raise CannotRunHere("zeroconf, spake2 or noiseprotocol could not be had")


class Unclaimed:
    """A gateway of a story as a box, with the owner's computer on its LAN by a cable that has no IPv4."""

    def __init__(self, story: Story):
        self.story, self.place, self.owner = story, story.internet.a.gateway, story.internet.owner
        network.cable(self.owner, "home", self.place, "lan2")
        self.place.ip("link", "set", "lan2", "master", LAN)
        self.folder = self.place.folder
        self.etc, self.ram, self.console = self.folder / "data/etc", self.folder / "ram", self.folder / "console"
        self.etc.mkdir(parents=True)
        self.console.touch()
        (self.folder / "release").write_text('board = "virt-arm64"\nversion = "v9"\n')
        (self.folder / "altnet.toml").write_text(f'[[lan]]\ninterface = "{LAN}"\nadvertise = "router"\n')
        story.daemons[self.place.name] = "altnetd --config altnet.toml"
        story.start(self.place)
        self.running: subprocess.Popen | None = None

    def switch_on(self, minutes_ago: float = 0) -> None:
        """Has the power come on: what is in RAM is gone, what is on flash isn't."""
        if self.running:
            self.running.terminate()
            self.running.wait()
        subprocess.run(["rm", "-rf", self.ram], check=True)
        before = self.log().count("offered on")
        began = time.clock_gettime(time.CLOCK_BOOTTIME) - 60 * minutes_ago
        # In a namespace for its name too: a box calls itself what it is told.
        self.running = self.place.start(
            "unshare", "--uts", "altnet-setup", "--log", "debug", "run", "--lan", LAN, "--user", "nobody", "--release", "release", "--began", str(int(began)),
            "--etc", str(self.etc), "--run-directory", str(self.ram), "--first-boot", str(FIRST_BOOT), "--console", str(self.console),
            log="setup.log", env={"DATA": str(self.etc.parent), "PAUSE_S": "1", "RESTART": "true"},
        )
        wait_for("the box to offer itself", lambda: self._ended() or self.log().count("offered on") > before, timeout_s=60)

    def _ended(self) -> None:
        if self.running.poll() is not None:
            raise LabError(f"altnet-setup ended\n{self.log()}")

    def log(self) -> str:
        """What it logged."""
        log = self.place.lab.dir / "setup.log"
        return log.read_text() if log.exists() else ""

    def code(self) -> str:
        """The code on the console."""
        return shown(self.console.read_text())[0]

    def fingerprint(self) -> str:
        """The fingerprint on the console."""
        return shown(self.console.read_text())[1]

    def link_local(self) -> str:
        """The address of its LAN that needs no lease."""
        [link] = json.loads(self.place.ip("-j", "-6", "address", "show", "dev", LAN, "scope", "link"))
        return next(entry["local"] for entry in link["addr_info"])

    def page(self) -> str:
        """Its page, by the owner's computer."""
        return self.owner.run("curl", "--silent", "--fail", "--max-time", "10", f"http://[{self.link_local()}%25home]/").stdout

    def foreign(self, place: Place, *words: str) -> list | dict:
        """Has others' programs look for the box, or claim it."""
        done = place.run(str(PYTHON), str(PEER), *words, timeout_s=180)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return lines[0] if words[0] == "browse" else lines

    def tried(self, code: str, *words: str) -> list[str]:
        """What happens when others' programs claim it from a computer of the LAN."""
        said = self.foreign(self.story.internet.a.client, "claim", "192.168.1.1", "51821", code, *words)
        return [line["event"] for line in said]

    def tries(self) -> tuple[str, int]:
        """Whether it is open, and how many codes may still be tried; asks with none."""
        said = self.foreign(self.story.internet.a.client, "claim", "192.168.1.1", "51821", "")
        return said[0]["state"], said[0]["tries"]

    def claim(self, *words: str, code: str, check: bool = True) -> dict:
        """What altnet-provision says on the owner's computer."""
        said = claim(self.owner, code, *words)
        if check and said.get("joined") is None:
            raise LabError(f"claim {' '.join(words)}: {said}\n{self.log()[-2000:]}")
        return said


def shown(console: str) -> tuple[str, str]:
    """The code and the fingerprint that a console showed last."""
    return re.findall(r"by the code ([0-9A-Z]{5}-[0-9A-Z]{5}); its key is ([0-9a-f-]{24})", console)[-1]


def claim(owner: Place, code: str, *words: str) -> dict:
    """What altnet-provision says of claiming a box from a computer on its LAN."""
    return json.loads(owner.run("altnet-provision", "claim", "--json", *words, env={"ALTNET_CLAIM_CODE": code}, check=False, timeout_s=180).stdout)


def other_code(code: str, by: int) -> str:
    """A code that isn't this one, with a check that is right: a weighted sum in GF(32), by x^5 + x^2 + 1."""
    symbols = [SYMBOLS.index(letter) for letter in code.replace("-", "")[:9]]
    symbols[0] ^= by
    total = 0
    for symbol in symbols:
        total = (total << 1 ^ (0b100101 if total & 16 else 0)) ^ symbol
    total = total << 1 ^ (0b100101 if total & 16 else 0)
    text = "".join(SYMBOLS[symbol] for symbol in [*symbols, total])
    return f"{text[:5]}-{text[5:]}"

