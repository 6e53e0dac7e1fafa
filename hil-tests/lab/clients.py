"""A computer on a home's LAN that runs nothing of ours.

It takes its address from router advertisements by the kernel's own SLAAC (RFC 4862), and its
resolver from the same advertisements (RFC 8106) by an unmodified rdnssd.
"""

import ipaddress
import json
import os
import threading

from .places import LabError, Place, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RDNSSD = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "ci-tools/rdnssd/sbin/rdnssd")


def listen_for_advertisements(client: Place) -> None:
    """Starts what a desktop would have running anyway."""
    if not os.path.exists(RDNSSD):
        raise LabError("rdnssd is not there: run ci/install lab")
    client.sysctl("net.ipv6.conf.eth0.accept_ra=1", "net.ipv6.conf.eth0.accept_ra_rt_info_max_plen=64")
    client.start(RDNSSD, "-f", "-u", "root", "-p", "/run/rdnssd.pid", "-r", "/etc/resolv.conf", "-H", "/bin/true",
                 log=f"{client.name}-rdnssd.log")


def address(client: Place, timeout_s: float = 30) -> str:
    """The unique local address that the client made of an advertised prefix, once it has one."""

    def found() -> str | None:
        for link in json.loads(client.ip("-j", "-6", "address", "show", "dev", "eth0", "scope", "global")):
            for entry in link.get("addr_info", []):
                if ipaddress.ip_address(entry["local"]).is_private and entry.get("dynamic"):
                    return entry["local"]
        return None

    return wait_for(f"an address of {client.name} from a router advertisement", found, timeout_s)


def mac(client: Place) -> str:
    """The client's Ethernet address, as printed on its label."""
    return json.loads(client.ip("-j", "link", "show", "dev", "eth0"))[0]["address"]


def resolver(client: Place, timeout_s: float = 30) -> str:
    """The first resolver in the client's resolv.conf, once an advertisement brought one."""

    def found() -> str | None:
        for line in client.path("/etc/resolv.conf").read_text().splitlines():
            if line.startswith("nameserver "):
                return line.split()[1]
        return None

    return wait_for(f"a resolver of {client.name} from a router advertisement", found, timeout_s)


class Witness:
    """Writes down everything that runs in a place, until told to stop."""

    def __init__(self, place: Place, every_s: float = 0.05):
        self._place, self._seen, self._done = place, set(), threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(every_s,), daemon=True)
        self._thread.start()

    def _watch(self, every_s: float) -> None:
        while not self._done.wait(every_s):
            self._seen.update(self._place.processes().values())

    def stop(self) -> list[str]:
        """The programs that ran there: those seen, and those the lab itself ran."""
        self._done.set()
        self._thread.join()
        ran = {line.split()[0] for line in self._seen if line} | {command[0] for command in self._place.history}
        return sorted({os.path.basename(program) for program in ran} - {"nsenter"})
