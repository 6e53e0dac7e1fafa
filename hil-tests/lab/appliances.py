"""A house whose router is a machine with one of our disk images, on a provider's line.

The machine's ports are the other ends of the provider's interface `line` and of the client's `eth0`; nothing is between them. What is asked of
the box itself is typed at its console.
"""

import base64
import ipaddress
import json
import pathlib
import shlex
import subprocess

from . import machines, network, providers
from .machines import MACS, ROOT, Machine
from .members import PASSPHRASE
from .altnet import BINARIES
from .places import CannotRunHere, Lab, LabError, wait_for
from .providers import LINE, Household, Provider

# Emulated, and perhaps beside other things.
PATIENCE_S = 180
TYPED_BYTES = 500  # of a line at the console; its terminal takes no more than 4096


def need() -> None:
    """Fetches emulators and others' programs, and builds what other members run."""
    machines.need()
    providers.prepare()
    if subprocess.run([ROOT / "ci/install", "scan"]).returncode:
        raise CannotRunHere("nmap could not be had")


class Appliance(Household):
    """A box, and a household on its LAN. Use as a context manager; leaving it pulls the plug."""

    patience_s = PATIENCE_S

    def __init__(self, lab: Lab, provider: Provider, kind: str, disk: pathlib.Path, memory_mb: int = 0, keyboard: bool = False):
        super().__init__(lab)
        self.kind, self.disk, self.memory_mb, self.provider, self.keyboard = kind, disk, memory_mb, provider, keyboard
        self.machine: Machine | None = None
        lab.environment |= {"PATH": f"{BINARIES}:/usr/sbin:/usr/bin:/sbin:/bin", "ALTNET_PASSPHRASE": PASSPHRASE}

    def __enter__(self) -> "Appliance":
        return self

    def __exit__(self, *_) -> None:
        self.cut_power()

    def switch_on(self) -> None:
        """Plugs both cables in, and switches the box on. Whoever was on them stays as they were."""
        cables = (network.tap(self.provider.place, LINE), network.tap(self.client, "eth0"))
        for place, name in ((self.provider.place, LINE), (self.client, "eth0")):
            place.ip("link", "set", name, "up")
        self.machine = Machine(self.kind, self.disk, self.lab.dir / "console.log", cables, self.memory_mb, self.lab._spawn, keyboard=self.keyboard)

    def serve(self) -> None:
        """Has the provider serve the box."""
        self.provider.serve(MACS[0])

    def cut_power(self) -> None:
        """Pulls the plug."""
        if self.machine:
            self.machine.__exit__()
            self.machine = None

    def settled(self) -> dict:
        """The router's status, once it has addresses on its line and all that it has running runs."""

        def works() -> dict | None:
            status = self.router("status")
            running = all(child["state"] == "runs" for child in status["children"])
            return status if running and all(wan["works"] and wan["addresses"] for wan in status["wans"]) else None

        return wait_for("the box's line to work", works, PATIENCE_S, every_s=1)

    def router(self, *words: str) -> dict:
        """Asks the box's router something."""
        said = self.machine.ask(f"altnet-routerd --json {shlex.join(words)}")
        try:
            return json.loads(said[-1])
        except (IndexError, ValueError):
            raise LabError(f"altnet-routerd {' '.join(words)} said {said} on the box") from None

    def outside(self, family: int) -> list[str]:
        """The box's addresses on its line."""
        [wan] = self.router("status")["wans"]
        nets = (ipaddress.ip_interface(address["net"]) for address in wan["addresses"])
        return [str(net.ip) for net in nets if net.version == family]

    def bring(self, file: pathlib.Path, path: str) -> None:
        """Copies a file to the box, as its console lets it through."""
        text = base64.b64encode(file.read_bytes()).decode()
        for at in range(0, len(text), TYPED_BYTES):
            self.machine.ask(f"printf %s {text[at:at + TYPED_BYTES]} {'>>' if at else '>'}{path}.base64")
        self.machine.ask(f"base64 -d {path}.base64 >{path}; rm {path}.base64")

    def write(self, path: str, text: str) -> None:
        """Types a file."""
        for number, line in enumerate(text.splitlines()):
            self.machine.ask(f"printf '%s\\n' {shlex.quote(line)} {'>>' if number else '>'}{path}")
