"""A provider that is dialed: rp-pppoe's server, with a pppd for each session, and WIDE's DHCPv6 server on it. Only in a guest (`lab.guest`).

ISC's server, which other providers here have, knows of no interface without a MAC address.
"""

import os
import signal

from .places import Lab, Place, wait_for
from .providers import LINE, House, Provider

USER, PASSWORD = "anna@provider.example", "correct horse #7"
SESSION = "ppp0"  # the provider's end of a session
# In the order in which they are ended where none may say goodbye for another one.
PROGRAMS = ("pppoe-server", "pppoe", "pppd", "radvd", "dhcp6s")


class Concentrator(Provider):
    """A provider whose line carries PPP over Ethernet (RFC 2516) and nothing else. Of its customers it knows the user and the password."""

    def __init__(self, lab: Lab, name: str = "provider"):
        super().__init__(lab, name)
        self._box: Place | None = None
        self._options = self.place.folder / "options"
        self._options.write_text(
            f'require-chap\n+ipv6\nms-dns {self.net4}.53\nlcp-echo-interval 5\nlcp-echo-failure 3\nlogfile {lab.dir / f"{name}-pppd.log"}\n'
        )
        logins = self.place.path("/etc/ppp/chap-secrets")
        logins.write_text(f'"{USER}" * "{PASSWORD}" *\n')
        logins.chmod(0o600)

    def plug(self, house: House, port: str = "wan") -> None:
        """Connects a port of a house's router, and answers when it dials."""
        self.connect(house, port)
        self._box = house.router
        self.answer()

    def answer(self) -> None:
        """Begins to answer to who dials."""
        self.place.start(
            "pppoe-server", "-F", "-I", LINE, "-L", f"{self.net4}.1", "-R", f"{self.net4}.50", "-N", "8", "-O", str(self._options),
            log=f"{self.name}-pppoe.log",
        )

    def carry(self) -> None:
        """Waits for a session, and serves IPv6 on it: advertises itself, lends an address, and delegates the prefix."""
        place = self.place
        shown = lambda: place.run("ip", "-6", "address", "show", "dev", SESSION, "up", "scope", "link", check=False).stdout
        wait_for("a session with IPv6", lambda: "inet6 fe80:" in shown(), timeout_s=60)
        self.advertise("AdvManagedFlag on; AdvOtherConfigFlag on;", "AdvAutonomous off;", SESSION)
        kept = self._box.path("/var/lib/dhcpcd/duid")
        duid = wait_for("the box's DUID", lambda: kept.exists() and kept.read_text().strip())
        (place.folder / "dhcp6s.conf").write_text(
            f"option domain-name-servers {self.net6}::53;\n"
            f"host box {{ duid {duid}; address {self.net6}::1000 1800 3600; prefix {self.prefix} 1800 3600; }};\n"
        )
        place.start("dhcp6s", "-f", "-D", "-c", str(place.folder / "dhcp6s.conf"), "-P", "/run/dhcp6s.pid", SESSION, log=f"{self.name}-dhcp6s.log")
        for net in (f"{self.net6}::/64", self.prefix):
            place.ip("-6", "route", "replace", net, "dev", SESSION)

    def vanish(self) -> None:
        """Is gone from one moment to the next, and tells nobody."""
        running = lambda: {pid: os.path.basename(line.split(" ")[0]) for pid, line in self.place.processes().items()}
        mine = lambda: {pid: name for pid, name in running().items() if name in PROGRAMS}
        for pid, _ in sorted(mine().items(), key=lambda each: PROGRAMS.index(each[1])):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        has_session = lambda: SESSION in self.place.ip("-o", "link", "show")
        wait_for("the provider to be gone", lambda: not mine() and not has_session())
