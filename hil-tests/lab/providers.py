"""A provider as people have one, of other people's programs, with a house's router on its line and a computer in the house.

The provider gives IPv4 by dnsmasq, advertises itself by radvd, and delegates a prefix by ISC's dhcpd. Beyond it is a web
server with addresses of both families.
"""

import ipaddress
import json
import os
import signal
import subprocess

from . import network
from .altnet import BINARIES, PYTHON, ROOT, TARGET, build_binaries
from .places import IN_GUEST, CannotRunHere, Lab, LabError, Place, wait_for

TOOLS = TARGET / "ci-tools"
DHCPCD, DHCPD, DHCLIENT = TOOLS / "dhcpcd/usr/sbin", TOOLS / "isc-dhcp/usr/sbin/dhcpd", TOOLS / "isc-dhcp/sbin/dhclient"
RADVD, MINIUPNPD = TOOLS / "radvd/usr/sbin/radvd", TOOLS / "miniupnpd/usr/sbin/miniupnpd"

SITE4, SITE6 = "203.0.113.80", "2001:db8:80::80"
SITE = "www.example"  # by the provider's resolver, see `answer_names`
PAGE = "this is the internet"
LINE = "line"  # the provider's end of a line

# Of a place that is on nobody's way: connects or sends to each port and says which answered and which refused;
# what says nothing within a second is silent.
SCAN = """
import asyncio, json, socket, sys
async def tcp(host, port):
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
async def udp(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect((host, port))
        asking.send(bytes(32))
        await asyncio.get_running_loop().sock_recv(asking, 2048)
async def one(how, host, port):
    try:
        await asyncio.wait_for(how(host, port), 1)
        return "open"
    except asyncio.TimeoutError:
        return "silent"
    except OSError as e:
        return "refused" if e.errno == 111 else f"errno {e.errno}"
async def all(how, host, *ports):
    return dict(zip(ports, await asyncio.gather(*[one(how, host, int(port)) for port in ports])))
print(json.dumps(asyncio.run(all({"tcp": tcp, "udp": udp}[sys.argv[1]], *sys.argv[2:]))))
"""


def prepare() -> None:
    """Builds the router, and fetches others' programs. In a guest that was done by who started it."""
    build_binaries()
    if IN_GUEST:
        return
    if subprocess.run([ROOT / "ci/install", "router", "ports"]).returncode:
        raise CannotRunHere("dhcpcd, dnsmasq, radvd, ISC's dhcpd or miniupnpd could not be had")


class Provider:
    """A provider's router, and what is beyond it. Several of them lead to the same site."""

    def __init__(self, lab: Lab, name: str = "provider", number: int = 1, prefix: str = "2001:db8:a00::/56"):
        self.place, self.name = lab.place(name), name
        self.net4, self.net6 = f"198.51.{99 + number}", f"2001:db8:{number}"
        network.forward(self.place)
        self.reach_the_site()
        self._serve_a_page()
        self.prefix = prefix
        self._delegating: subprocess.Popen | None = None

    def reach_the_site(self, does: bool = True) -> None:
        """Has the line lead to the internet, or end at the provider's router."""
        word = "add" if does else "del"
        self.place.ip("address", word, f"{SITE4}/32", "dev", "lo")
        self.place.ip("address", word, f"{SITE6}/128", "dev", "lo", *(["nodad"] if does else []))

    def _serve_a_page(self) -> None:
        folder = self.place.folder / "www"
        folder.mkdir()
        (folder / "index.html").write_text(PAGE)
        self.place.start(PYTHON, "-m", "http.server", "--bind", "::", "--directory", str(folder), "80", log=f"{self.name}-site.log")

    def plug(self, house: "House", port: str = "wan") -> None:
        """Connects a port of a house's router, and begins to serve it."""
        self.serve(self.connect(house, port))

    def connect(self, house: "House", port: str = "wan") -> str:
        """Connects a port of a house's router, and returns its MAC address."""
        network.cable(house.router, port, self.place, LINE)
        return mac_of(house.router, port)

    def serve(self, mac: str) -> None:
        """Begins to serve a router of this MAC address, at the other end of the interface `line`."""
        self.customer = link_local(mac)
        self.be_there()
        self.lend()
        self.advertise("AdvManagedFlag on; AdvOtherConfigFlag on;", "AdvAutonomous off;")
        self.delegate(self.prefix)

    def be_there(self) -> None:
        """Has the provider's addresses on its end of the line."""
        network.address(self.place, LINE, f"{self.net4}.1/24")
        self.place.ip("address", "add", f"{self.net6}::1/64", "dev", LINE, "nodad")
        self.place.lab.dir.chmod(0o755)  # some of what serves drops privileges

    def lend(self) -> None:
        """Begins to lend IPv4 addresses."""
        self.place.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", f"--interface={LINE}", "--user=root",
            f"--dhcp-range={self.net4}.50,{self.net4}.99,10m", f"--dhcp-option=option:router,{self.net4}.1",
            f"--dhcp-option=option:dns-server,{self.net4}.53", "--dhcp-leasefile=/run/leases", log=f"{self.name}-dnsmasq.log",
        )

    def advertise(self, flags: str, prefix_flags: str, interface: str = LINE) -> None:
        """Begins to advertise the line's prefix by radvd, with these settings of the interface and of the prefix."""
        place = self.place
        (place.folder / "radvd.conf").write_text(
            f"interface {interface} {{ AdvSendAdvert on; {flags} MinRtrAdvInterval 3; MaxRtrAdvInterval 4;"
            f" prefix {self.net6}::/64 {{ {prefix_flags} }}; }};\n"
        )
        place.start(str(RADVD), "--nodaemon", "--logmethod", "stderr", "--config", "radvd.conf", "--pidfile", "/run/radvd.pid",
                    log=f"{self.name}-radvd.log")

    def delegate(self, prefix: str) -> None:
        """Delegates this prefix from now on, and no other."""
        place = self.place
        if self._delegating:
            self._delegating.terminate()
            self._delegating.wait()
            place.ip("-6", "route", "del", self.prefix)
        self.prefix = prefix
        base, bits = prefix.split("/")
        (place.folder / "dhcpd.conf").write_text(
            "default-lease-time 3600; preferred-lifetime 1800; authoritative; "
            f"option dhcp6.name-servers {self.net6}::53;\n"
            f"subnet6 {self.net6}::/64 {{ range6 {self.net6}::1000 {self.net6}::1fff; prefix6 {base} {base} /{bits}; }}\n"
        )
        (place.folder / "leases").write_text("")
        self._delegating = place.start(str(DHCPD), "-6", "-f", "-d", "-cf", "dhcpd.conf", "-lf", "leases", "-pf", "/run/dhcpd.pid", LINE,
                                       log=f"{self.name}-dhcpd.log")
        # As a provider's routers do for what they delegated.
        place.ip("-6", "route", "add", prefix, "via", self.customer, "dev", LINE)

    def answer_names(self) -> None:
        """Has a resolver at the addresses that customers are told of; it knows the site alone."""
        place, servers = self.place, (f"{self.net4}.53", f"{self.net6}::53")
        network.address(place, LINE, f"{servers[0]}/24")
        place.ip("address", "add", f"{servers[1]}/64", "dev", LINE, "nodad")
        place.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file=/run/names.pid",
            *(f"--listen-address={server}" for server in servers), *(f"--host-record={SITE},{address}" for address in (SITE4, SITE6)),
            log=f"{self.name}-names.log",
        )

    def visitors(self) -> list[str]:
        """From where the page was fetched so far."""
        log = (self.place.lab.dir / f"{self.name}-site.log").read_text()
        return [line.split()[0].removeprefix("::ffff:") for line in log.splitlines() if '"GET ' in line]

    def scan(self, host: str, *ports: int, by: str = "tcp") -> dict[str, str]:
        """How ports of a host answer to who is on the line, by tcp or udp: open, refused or silent."""
        return json.loads(self.place.run(PYTHON, "-c", SCAN, by, host, *map(str, ports)).stdout)


class Household:
    """A computer in a house, on the LAN of its router, that runs nothing of ours."""

    patience_s = 30  # what a router may take to serve it

    def __init__(self, lab: Lab):
        self.lab, self.client = lab, lab.place("client")
        self._asking: subprocess.Popen | None = None

    def lease(self) -> str:
        """Has the client ask for an IPv4 address by ISC's dhclient, and returns it."""
        folder = self.client.folder
        self.forget()
        self._asking = self.client.start(
            str(DHCLIENT), "-4", "-d", "-cf", "/dev/null", "-lf", str(folder / "dhclient.leases"), "-pf", "/run/dhclient.pid",
            "-sf", str(DHCLIENT.with_name("dhclient-script")), "eth0", log="client-dhclient.log",
        )
        return wait_for("an IPv4 address of the client", lambda: next(iter(addresses(self.client, "eth0", 4)), None), self.patience_s)

    def forget(self) -> None:
        """Has the client ask no longer, and have no IPv4 address."""
        if self._asking:
            self._asking.terminate()
            self._asking.wait()
            self._asking = None
            self.client.ip("-4", "address", "flush", "dev", "eth0")

    def slaac(self, inside: str) -> str:
        """The address that the client made itself of an advertised prefix, within `inside`."""
        self.client.sysctl("net.ipv6.conf.eth0.accept_ra=1")

        def found() -> str | None:
            made = addresses(self.client, "eth0", 6)
            return next((ip for ip in made if ipaddress.ip_address(ip) in ipaddress.ip_network(inside)), None)

        return wait_for(f"an IPv6 address of the client in {inside}", found, 2 * self.patience_s)

    def fetch(self, family: int, check: bool = True) -> bool:
        """Fetches the page on the internet from the client."""
        site = SITE4 if family == 4 else f"[{SITE6}]"
        done = self.client.run("curl", "--silent", "--fail", "--max-time", "5", f"http://{site}/", check=False)
        if check and done.stdout != PAGE:
            raise LabError(f"the client got no page over IPv{family}: curl ended with {done.returncode}")
        return done.stdout == PAGE


class House(Household):
    """A router of ours with one LAN port, and a household on it."""

    def __init__(self, lab: Lab, config: str = "[router]\n"):
        super().__init__(lab)
        self.router = lab.place("router")
        network.cable(self.router, "lan1", self.client, "eth0")
        lab.environment["PATH"] = f"{BINARIES}:{DHCPCD}:{MINIUPNPD.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.config = self.router.folder / "altnet.toml"
        self.config.write_text(config)
        self.ports = {"wan": "wan", "lan": ["lan1"]}
        self.running: subprocess.Popen | None = None
        self.router.path("/var/lib/dhcpcd").mkdir(exist_ok=True)

    def start(self, *words: str) -> None:
        """Starts the router, with these words too, and waits until it answers."""
        self.running = self.router.start(
            "altnet-routerd", "run", "--config", str(self.config), "--ports", json.dumps(self.ports), "--log", "debug", *words,
            log="routerd.log",
        )
        wait_for("altnet-routerd to answer", lambda: self.ask("status", check=False))

    def kill(self) -> None:
        """Kills the router, and nothing else: its children go on."""
        self.running.kill()
        self.running.wait()

    def cut_power(self) -> None:
        """Ends everything at once, and leaves of it what is on flash."""
        self.kill()
        for pid in self.children():
            os.kill(pid, signal.SIGKILL)
        wait_for("the router's children to be gone", lambda: not self.children())
        self.router.ip("link", "delete", "br-lan")
        self.router.ip("address", "flush", "dev", "wan", "scope", "global")
        self.router.run("bash", "-c", "nft flush ruleset; rm -rf /run/altnet-router /var/lib/dhcpcd/*.lease*")

    def children(self) -> dict[int, str]:
        """What the router has running for it."""
        return {pid: line for pid, line in self.router.processes().items() if "dnsmasq" in line or "dhcpcd" in line}

    def settled(self) -> set[int]:
        """The router's children, once all of them run."""

        def all_run() -> set[int] | None:
            children = self.ask("status")["children"]
            running = set(self.children())
            return running if all(child["state"] == "runs" for child in children) and len(running) == len(children) else None

        return wait_for("the router's children to run", all_run)

    def ask(self, *words: str, check: bool = True) -> dict | None:
        """Asks the router something."""
        done = self.router.run("altnet-routerd", "--json", *words, check=check)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def apply(self, config: str) -> None:
        """Puts a file on trial."""
        (self.router.folder / "new.toml").write_text(config)
        self.ask("apply", "new.toml")

    def log(self) -> str:
        """What the router logged so far."""
        return (self.lab.dir / "routerd.log").read_text()


def addresses(place: Place, interface: str, family: int) -> dict[str, dict]:
    """The global addresses of an interface, with what `ip` says of each."""
    found = {}
    for link in json.loads(place.ip("-j", f"-{family}", "address", "show", "dev", interface, "scope", "global")):
        for entry in link.get("addr_info", []):
            if "local" in entry and not entry.get("tentative"):
                found[entry["local"]] = entry
    return found


def mac_of(place: Place, interface: str) -> str:
    """The MAC address of an interface."""
    [link] = json.loads(place.ip("-j", "link", "show", "dev", interface))
    return link["address"]


def link_local(mac: str) -> str:
    """The link-local address that an interface makes of its MAC address (RFC 4291 appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])))
