"""Homes on every kind of line, with the simulator's NATs between them.

A place gets a TUN device in place of a cable; the program `internet` (firmware/altnet-sim) holds
the other ends, translates, filters and delays. Nothing of the kernel's NAT is involved.
"""

import os
import pathlib
import subprocess
from dataclasses import dataclass, field

from . import network
from .places import Lab, LabError, Place

RELAYS = ("203.0.113.10", "203.0.113.11")

# The kinds of lines, by the names of altnet-sim/src/grid.txt.
KINDS = (
    "open", "full-cone", "address-restricted", "port-restricted", "symmetric-sequential", "symmetric-random",
    "cgnat", "cgnat-symmetric", "hairpin", "udp-blocked", "v6-only", "dual-stack",
)


@dataclass
class Home:
    """A gateway on a line."""

    name: str
    kind: str
    place: Place


@dataclass
class Net:
    """The program that is the internet, and what is connected to it."""

    lab: Lab
    binary: pathlib.Path
    seed: int = 1
    homes: list[Home] = field(default_factory=list)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of servers, by name
    _said: list[str] = field(default_factory=list)
    _devices: list[int] = field(default_factory=list)
    _program: subprocess.Popen | None = None

    def server(self, name: str, *addresses: str) -> Place:
        """A computer with public addresses of its own."""
        place = self.lab.place(name)
        self._device(place, name, "server")
        for address in addresses:
            self._line(place, address)
        self.addresses[name] = addresses
        return place

    def bare(self, name: str) -> Home:
        """A gateway without a line; see `connect`."""
        place = self.lab.place(name)
        self._device(place, name, "home")
        home = Home(name, "bare", place)
        self.homes.append(home)
        return home

    def connect(self, home: Home, *lines: tuple[str, str, str, str]) -> None:
        """Gives a home other lines than it had: each an address, a NAT of this name and kind, and its address outside."""
        self._told(f"unplug {home.name}")
        _no_address(home.place)
        for address, nat, kind, public in lines:
            self._told(f"nat {nat} {kind} {public}")
            self._told(f"line {home.name} {address} nat {nat}")
            _address(home.place, address)

    def _told(self, line: str) -> None:
        """Says something now, or once everything is connected."""
        if self._program:
            self.say(line)
        else:
            self._said.append(line)

    def home(self, kind: str, number: int, group: int) -> Home:
        """A gateway on a line of this kind; those of one `group` share a carrier where the kind is about that."""
        name = f"{kind}-{group}"
        place = self.lab.place(name)
        self._device(place, name, "home")
        public, private, v6 = f"198.51.100.{number}", f"100.64.{number}.2", f"2001:db8:{number:x}::2"
        plain = {"full-cone", "address-restricted", "port-restricted", "symmetric-sequential", "symmetric-random"}
        if kind == "open":
            self._line(place, public)
        elif kind in plain:
            self._nat(name, kind, public)
            self._line(place, private, f"nat {name}")
        elif kind in ("cgnat", "cgnat-symmetric"):
            carrier = "port-restricted" if kind == "cgnat" else "symmetric-random"
            self._nat(f"{name}-carrier", carrier, public)
            self._nat(name, "port-restricted", private, f"behind {name}-carrier")
            self._line(place, f"192.168.{number}.2", f"nat {name}")
        elif kind == "hairpin":
            if not any(word.startswith("nat hairpin ") for word in self._said):
                self._nat("hairpin", "hairpin", public)
            self._nat(name, "port-restricted", private, "behind hairpin")
            self._line(place, f"192.168.{number}.2", f"nat {name}")
        elif kind == "udp-blocked":
            self._nat(name, "port-restricted", public)
            self._line(place, private, f"nat {name}")
        elif kind == "v6-only":
            self._nat(f"{name}-nat64", "port-restricted", public)
            self._nat(name, "firewall", public)
            self._line(place, v6, f"nat {name} nat64 {name}-nat64")
            # What a resolver with DNS64 would say (RFC 7050 section 3).
            place.path("/etc/hosts").write_text("127.0.0.1 localhost\n64:ff9b::c000:aa ipv4only.arpa\n")
        elif kind == "dual-stack":
            self._nat(f"{name}-carrier", "port-restricted", public)
            self._nat(name, "firewall", public)
            self._line(place, private, f"nat {name}-carrier")
            self._line(place, v6, f"nat {name}")
        else:
            raise LabError(f"there is no kind of line {kind}; there are {', '.join(KINDS)}")
        home = Home(name, kind, place)
        self.homes.append(home)
        return home

    def go(self) -> None:
        """Connects everything."""
        self._program = subprocess.Popen([self.binary, str(self.seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         pass_fds=self._devices, text=True, start_new_session=True)
        for device in self._devices:
            os.close(device)
        for said in [*self._said, "go"]:
            self.say(said)
        if self._program.stdout.readline() != "ready\n":
            raise LabError("the internet of the lab did not start")

    def say(self, line: str) -> None:
        """Changes something; see the program's own words."""
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()

    def end(self) -> None:
        """Disconnects everything."""
        if self._program:
            self._program.stdin.close()
            self._program.wait()

    def _nat(self, name: str, kind: str, public: str, behind: str = "") -> None:
        self._said.append(f"nat {name} {kind} {public} {behind}".rstrip())

    def _line(self, place: Place, address: str, before: str = "") -> None:
        _address(place, address)
        self._said.append(f"line {place.name} {address} {before}".rstrip())

    def _device(self, place: Place, name: str, role: str) -> None:
        device = network.tun(place, "wan")
        self._devices.append(device)
        place.ip("link", "set", "wan", "up", "mtu", "1500")
        self._said.append(f"host {name} {device} {role}")


def _no_address(place: Place) -> None:
    for family in ("-4", "-6"):
        place.ip(family, "address", "flush", "dev", "wan", "scope", "global")


def _address(place: Place, address: str) -> None:
    bits = 128 if ":" in address else 32
    place.ip("address", "add", f"{address}/{bits}", "dev", "wan", *(["nodad"] if bits == 128 else []))
    place.ip("-6" if bits == 128 else "-4", "route", "replace", "default", "dev", "wan", "src", address)
