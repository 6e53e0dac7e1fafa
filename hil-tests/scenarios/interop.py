"""The WireGuard engine against wireguard-go, across a wire."""

import hashlib
import re
import secrets
import signal
import subprocess
import time

from lab import network
from lab.altnet import PYTHON, ROOT, TARGET
from lab.places import CannotRunHere, Lab, Place, wait_for

WIREGUARD_GO = TARGET / "ci-tools/wireguard-go/usr/bin/wireguard-go"
OURS = TARGET / "debug/examples/wg"
PORT = 51820
# Eight seconds: a peer begins anew at most every five (REKEY_TIMEOUT).
TRANSFER_BYTES = 32 << 20
RATE = "4M"


class Pair:
    """Our engine and wireguard-go, a cable apart, with one tunnel between them."""

    def __init__(self, lab: Lab, name: str, we_begin: bool):
        self.ours, self.theirs = lab.place(f"ours-{name}"), lab.place(f"theirs-{name}")
        network.cable(self.ours, "eth0", self.theirs, "eth0")
        network.address(self.ours, "eth0", "10.9.0.1/24")
        network.address(self.theirs, "eth0", "10.9.0.2/24")
        (our_key, our_public), (their_key, their_public) = keys(), keys()
        preshared = subprocess.check_output(["wg", "genpsk"], text=True).strip()
        self.log = lab.dir / f"{name}-ours.log"
        self.process = self.ours.start(
            str(OURS), "wg0", str(PORT), our_key, their_public, preshared, f"10.9.0.2:{PORT}" if we_begin else "-", log=self.log.name
        )
        self.theirs.start(str(WIREGUARD_GO), "-f", "wg0", log=f"{name}-theirs.log")
        socket = self.theirs.path("/run/wireguard/wg0.sock")
        wait_for("wireguard-go's socket", socket.exists)
        wait_for("our driver", lambda: "ready" in self.log.read_text())
        endpoint = "" if we_begin else f"Endpoint = 10.9.0.1:{PORT}\n"
        self.theirs.run(
            "wg", "setconf", "wg0", "/dev/stdin",
            stdin=f"[Interface]\nPrivateKey = {their_key}\nListenPort = {PORT}\n"
            f"[Peer]\nPublicKey = {our_public}\nPresharedKey = {preshared}\nAllowedIPs = 10.8.0.1/32\n{endpoint}",
        )
        self.begins, self.begins_to = (self.ours, "10.8.0.2") if we_begin else (self.theirs, "10.8.0.1")
        # Who begins comes up last: a kernel sends something at once.
        for place in sorted((self.ours, self.theirs), key=lambda place: place is self.begins):
            network.address(place, "wg0", "10.8.0.1/24" if place is self.ours else "10.8.0.2/24")
            place.ip("link", "set", "wg0", "mtu", "1420", "up")
        # wireguard-go binds its port anew when its device comes up; an initiation lost then is repeated after five seconds.
        self.begins.run("ping", "-c", "1", "-W", "10", self.begins_to)

    def handshake(self) -> int:
        """When wireguard-go last agreed on a session, in seconds since 1970; 0 for never."""
        said = self.theirs.run("wg", "show", "wg0", "latest-handshakes").stdout.split()
        return int(said[1]) if said else 0

    def sessions(self) -> int:
        """How many sessions our engine has had."""
        return len(re.findall(r"^(?:SessionUp|Rekeyed)", self.log.read_text(), re.MULTILINE))


def keys() -> tuple[str, str]:
    """A private key and its public half."""
    private = subprocess.check_output(["wg", "genkey"], text=True).strip()
    return private, subprocess.check_output(["wg", "pubkey"], text=True, input=private).strip()


def prepare() -> None:
    """Builds our driver and fetches theirs."""
    if subprocess.run([ROOT / "ci/install", "peers"]).returncode:
        raise CannotRunHere("wireguard-go could not be had")
    # Of the whole workspace, as the tests are built: with other features all would be built again.
    subprocess.run(["cargo", "build", "-q", "--locked", "--workspace", "--example", "wg"], cwd=ROOT, check=True)


def wireguard_go_interop() -> None:
    """Each side begins once; files cross both ways, whole, while sessions are replaced under them."""
    prepare()
    for we_begin in (True, False):
        with Lab() as lab:
            pair = Pair(lab, "pair", we_begin)
            assert pair.handshake() > 0, "wireguard-go knows of no handshake"
            before = pair.sessions()
            for sender, receiver, address in ((pair.ours, pair.theirs, "10.8.0.1"), (pair.theirs, pair.ours, "10.8.0.2")):
                transfer(pair, sender, receiver, address)
            print(f"{'we' if we_begin else 'they'} began; {2 * TRANSFER_BYTES >> 20} MiB crossed through {pair.sessions() - before} new sessions")
            assert pair.sessions() - before >= 2, "the sessions were not replaced under the transfers"


def transfer(pair: Pair, sender: Place, receiver: Place, address: str) -> None:
    """Moves a file by HTTP while our engine asks for new sessions; raises unless it arrives whole."""
    content = secrets.token_bytes(TRANSFER_BYTES)
    (sender.folder / "file").write_bytes(content)
    server = sender.start(PYTHON, "-m", "http.server", "--bind", address, "8000", log=f"{sender.name}-http.log")
    wait_for("the file's server", lambda: ":8000" in sender._tool("ss", "-Hltn"))
    fetched = receiver.folder / "fetched"
    fetching = receiver.start("curl", "-sS", "--max-time", "60", "--limit-rate", RATE, "-o", str(fetched), f"http://{address}:8000/file",
                              log=f"{receiver.name}-curl.log")
    while fetching.poll() is None:
        sessions = pair.sessions()
        pair.process.send_signal(signal.SIGUSR1)
        while fetching.poll() is None and pair.sessions() == sessions:
            time.sleep(0.02)
    server.terminate()
    assert fetched.exists(), (receiver.lab.dir / f"{receiver.name}-curl.log").read_text()
    assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(content).digest(), "the file arrived damaged"
    fetched.unlink()


def wireguard_go_rekeys_by_itself() -> None:
    """Over two minutes, whoever began a session replaces it (REKEY_AFTER_TIME, 120 s); no echo is lost."""
    prepare()
    with Lab() as lab:
        pairs = [Pair(lab, "we", True), Pair(lab, "they", False)]
        pings = [
            pair.begins.start("ping", "-i", "0.25", "-c", "520", "-W", "5", pair.begins_to, log=f"{pair.ours.name}-ping.log") for pair in pairs
        ]
        first = [pair.handshake() for pair in pairs]
        for pair, ping, began in zip(pairs, pings, first):
            ping.wait()
            said = (lab.dir / f"{pair.ours.name}-ping.log").read_text()
            print(f"{pair.ours.name}: {re.search('.*packet loss.*', said)[0]}; {pair.handshake() - began} s between handshakes")
            assert " 0% packet loss" in said, "an echo was lost"
            # One that a busy machine delays is tried again every five seconds; past 165 s the receiver would ask.
            assert 115 <= pair.handshake() - began <= 165, "the session was not replaced after two minutes"


SCENARIOS = [wireguard_go_interop, wireguard_go_rekeys_by_itself]
