"""A computer on a home's LAN that runs nothing of ours.

It takes its address from router advertisements by the kernel's own SLAAC (RFC 4862), and its
resolver from the same advertisements (RFC 8106) by an unmodified rdnssd.
"""

import ipaddress
import json
import os
import select
import socket
import struct
import threading
import time

from .places import LabError, Place, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RDNSSD = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "ci-tools/rdnssd/sbin/rdnssd")

NETLINK_CONNECTOR, CN_IDX_PROC, CN_VAL_PROC = 11, 1, 1
NLMSG_DONE, PROC_CN_MCAST_LISTEN, PROC_EVENT_EXEC = 3, 1, 2


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
    """Writes down everything that runs in a place, until told to stop.

    What the lab runs there is known. Of what that starts in turn, the kernel's process connector
    tells as it starts, and looking around now and then finds those that only forked.
    """

    def __init__(self, place: Place, every_s: float = 0.05):
        self._place, self._every_s, self._seen, self._done = place, every_s, set(), threading.Event()
        self._starts = _program_starts()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        looked = 0.0
        while not self._done.is_set():
            for socket_ in select.select([self._starts], [], [], self._every_s)[0]:
                # Netlink header 16, connector header 20, then: event u32, cpu u32, time u64, process u32.
                message = socket_.recv(256)
                event, pid = struct.unpack_from("=I12xI", message, 36)
                if event == PROC_EVENT_EXEC and (line := self._place.command_of(pid)):
                    self._seen.add(line)
            if time.monotonic() - looked > self._every_s:
                self._seen.update(self._place.processes().values())
                looked = time.monotonic()

    def stop(self) -> list[str]:
        """The programs that ran there."""
        self._done.set()
        self._thread.join()
        self._starts.close()
        programs = self._place.programs | {line.split()[0] for line in self._seen if line}
        return sorted({os.path.basename(program) for program in programs})


def _program_starts() -> socket.socket:
    """A socket on which the kernel tells of processes (linux/cn_proc.h)."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    listener.bind((0, CN_IDX_PROC))
    body = struct.pack("=IIIIHHI", CN_IDX_PROC, CN_VAL_PROC, 0, 0, 4, 0, PROC_CN_MCAST_LISTEN)
    listener.send(struct.pack("=IHHII", 16 + len(body), NLMSG_DONE, 0, 0, 0) + body)
    return listener
