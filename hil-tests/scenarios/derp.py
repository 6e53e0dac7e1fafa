"""Our relay's TCP carrier against Tailscale's own software: its data plane, and its client in Rust."""

import subprocess

from lab import nets, network
from lab.altnet import BINARIES, ROOT, TARGET, build_binaries
from lab.places import CannotRunHere, Lab, Place, wait_for
from lab.tailcat import DERP_PORT, MAP_PORT, NAME, Tailcats, prepare, serve_derp

RUST_PEER = TARGET / "ts-derp/release/ts-derp-peer"
RELAY, SERVER, CLIENT = "198.51.100.1", "198.51.100.2", "198.51.100.3"
FAR_RELAY, SERVERS_NAT, CLIENTS_NAT = "203.0.113.10", "198.51.100.21", "198.51.100.22"


class Street(Tailcats):
    """The relay and both computers on one Ethernet."""

    def __init__(self, lab: Lab, admit: str = "any", is_pinned: bool = False):
        relay, server, client = (lab.place(name) for name in ("relay", "server", "client"))
        for at, place in enumerate((server, client), 1):
            network.cable(relay, f"port{at}", place, "eth0")
        network.bridge(relay, "lan", "port1", "port2")
        for place, name, address in ((relay, "lan", RELAY), (server, "eth0", SERVER), (client, "eth0", CLIENT)):
            network.address(place, name, f"{address}/24")
        for place in (server, client):
            network.route_by(place, RELAY)
        super().__init__(relay, server, client, "lan", RELAY, admit, is_pinned)

    def block_udp(self) -> None:
        """Lets the two talk by TCP alone."""
        for place in (self.server, self.client):
            network.block_udp(place, "eth0")

    def let_udp_through(self) -> None:
        """Undoes `block_udp`."""
        for place in (self.server, self.client):
            network.let_udp_through(place)


class Apart(Tailcats):
    """The relay on the internet, and both computers behind a NAT of this kind each."""

    def __init__(self, lab: Lab, kind: str, has_stun: bool = True):
        self.net = nets.Net(lab, BINARIES / "examples/internet")
        relay = self.net.server("relay", FAR_RELAY)
        homes = [self.net.bare(name) for name in ("server", "client")]
        for at, (home, public) in enumerate(zip(homes, (SERVERS_NAT, CLIENTS_NAT)), 1):
            self.net.connect(home, (f"192.168.{at}.2", f"nat-{at}", kind, public))
        self.net.go()
        super().__init__(relay, *(home.place for home in homes), "wan", FAR_RELAY, has_stun=has_stun)

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_) -> None:
        self.net.end()


def tailscales_data_plane_uses_our_relay() -> None:
    """tailcat reaches its peer over our relay where UDP is blocked, moves a page whole, and goes direct once it may."""
    prepare()
    with Lab() as lab:
        street = Street(lab)
        street.block_udp()
        address = street.serve()
        said = street.tailcat("ping", address).stdout
        assert "via DERP(lab)" in said and "via 198" not in said, said
        street.fetches_by_relay(address)
        street.let_udp_through()
        # Forced, though it could go direct.
        forced = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
        said = street.tailcat("ping", address, env=forced).stdout
        assert "via DERP(lab)" in said, said
        # The two learn of each other's addresses over the relay, and then need it no more.
        said = street.tailcat("ping", "--until-direct", address).stdout
        assert f"via {SERVER}:" in said, said
        street.fetches_directly(address)


def tailscales_data_plane_goes_direct_by_our_stun() -> None:
    """Two tailcats behind port-restricted NATs begin over our relay and go direct by what its STUN tells them; without it they stay."""
    prepare()
    with Lab() as lab, Apart(lab, "port-restricted", has_stun=False) as pair:
        stays_relayed(pair, pair.serve())
    with Lab() as lab, Apart(lab, "port-restricted") as pair:
        address = pair.serve()
        said = pair.tailcat("ping", "--until-direct", "--timeout=30s", address).stdout
        print(said.strip())
        # Neither knows more of the other than its key and the relay's name.
        assert pair.log.read_text().count(" came as ") >= 2, "they didn't begin over our relay"
        assert f"via {SERVERS_NAT}:" in said.splitlines()[-1], f"it didn't end at the other's NAT: {said}"
        pair.fetches_directly(address)


def tailscales_data_plane_stays_on_our_relay_if_it_must() -> None:
    """Two tailcats behind NATs that choose every port at random move a page over our relay, whatever STUN tells them."""
    prepare()
    with Lab() as lab, Apart(lab, "symmetric-random") as pair:
        address = pair.serve()
        stays_relayed(pair, address)
        pair.fetches_by_relay(address)


def stays_relayed(pair: Tailcats, address: str) -> None:
    """Holds that no direct path is found in ten seconds, while the relay carries."""
    said = pair.tailcat("ping", "--until-direct", "--timeout=10s", address, check=False)
    print(said.stdout.strip())
    assert said.returncode and "via DERP(lab)" in said.stdout and "via 198" not in said.stdout, said.stdout + said.stderr


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
        serve_derp(place, "--listen", f"127.0.0.1:{DERP_PORT}", "--self-signed", "derp", "--host", NAME, "--admit", "any")
        print(place.run(str(RUST_PEER), NAME, "127.0.0.1", str(DERP_PORT)).stdout.strip())


SCENARIOS = [
    tailscales_data_plane_uses_our_relay,
    tailscales_data_plane_goes_direct_by_our_stun,
    tailscales_data_plane_stays_on_our_relay_if_it_must,
    tailscales_data_plane_knows_our_relay_by_its_pin,
    tailscales_data_plane_is_refused_unless_admitted,
]
# Building Tailscale's crate takes minutes.
LONG = [tailscales_rust_client_uses_our_relay]
