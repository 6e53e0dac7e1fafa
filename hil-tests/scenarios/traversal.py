"""What helps through NATs, in other people's words: coturn's STUN clients and its TURN server."""

import re
import subprocess
import time
from collections import Counter

from lab import homes, network
from lab.altnet import ROOT, TARGET, Story, metric
from lab.captures import Capture
from lab.places import CannotRunHere, Lab, Place, wait_for

COTURN = TARGET / "ci-tools/coturn/usr/bin"
OURS = TARGET / "debug/examples/turn"
PORT = 51820  # an altnet gateway's
TURN_PORT = 3478
TURN_SERVER, TURN_SERVER_V6 = "203.0.113.5", "2001:db8::5"
NATS = ("203.0.113.21", "203.0.113.22")  # as the internet sees homes A and B
REALM = "example.net"
LIFETIME_S = 600  # the shortest that coturn grants
NONCE_S = 10
# Types of messages: method and class (RFC 8656 section 17, RFC 8489 section 5).
REFRESHED, REFRESH_REFUSED, BOUND, BIND_REFUSED = "0104", "0114", "0109", "0119"


def prepare() -> None:
    """Fetches coturn."""
    if subprocess.run([ROOT / "ci/install", "stun"]).returncode:
        raise CannotRunHere("coturn could not be had")


def coturn_asks_a_relay() -> None:
    """coturn's own STUN clients learn their addresses from a relay, behind NATs too; a gateway that is no relay answers nobody."""
    prepare()
    with Lab() as lab:
        story = Story(lab, "public", "symmetric")
        story.tell(without={"gateway-b"})
        relay, owner, far = story.internet.relay, story.internet.owner, story.internet.b.gateway
        assert reflexive(owner, homes.RELAY)[0] == homes.OWNER, "a computer without a NAT has its own address"
        assert reflexive(far, homes.RELAY)[0] == NATS[1], "a gateway behind a NAT has the NAT's"
        for place, address in ((relay, "2001:db8::10/64"), (owner, "2001:db8::9/64")):
            network.address(place, "eth0", address)
        assert reflexive(owner, "2001:db8::10")[0] == "2001:db8::9", "over IPv6 it has another address"
        before = metric(relay, "altnet_stun_answers_total")
        said = discovery(far, homes.RELAY)
        assert f"UDP reflexive addr: {NATS[1]}:" in said, f"turnutils_natdiscovery learned nothing:\n{said}"
        assert metric(relay, "altnet_stun_answers_total") > before, "the relay counted no answer"

        gateway = story.internet.a.gateway
        assert reflexive(owner, "198.51.101.2") is None, "a gateway that is no relay answered"
        assert metric(gateway, 'altnet_dropped_total{reason="stun"}') > 0, "it didn't count what it dropped"
        flood(owner, relay)


def reflexive(place: Place, server: str) -> tuple[str, int] | None:
    """The address that a server says a place has, as turnutils_stunclient hears it."""
    said = place.run("timeout", "5", str(COTURN / "turnutils_stunclient"), "-p", str(PORT), server, check=False).stdout
    found = re.search(r"UDP reflexive addr: \[?([\da-f.:]+?)\]?:(\d+)\n", said)
    print(f"{place.name} asks {server}: {found[0].strip() if found else 'no answer'}")
    return (found[1], int(found[2])) if found else None


def discovery(place: Place, server: str) -> str:
    """What turnutils_natdiscovery says that a server says about a place's NAT."""
    return place.run("timeout", "10", str(COTURN / "turnutils_natdiscovery"), "-m", "-p", str(PORT), server, check=False).stdout


# Run at a place: a flood of Binding requests of 20 bytes, then as many filled up to 32; how many are answered of each.
FLOOD = """
import os, socket, struct, time
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
asker.settimeout(0.5)
for padding in (b"", struct.pack(">HH8x", 0x8022, 8)):
    began = time.monotonic()
    for _ in range(1000):
        asker.sendto(struct.pack(">HHI", 1, len(padding), 0x2112A442) + os.urandom(12) + padding, ("{relay}", {port}))
        time.sleep(0.0005)
    answers = 0
    try:
        while asker.recv(2048)[:2] == bytes([1, 1]): answers += 1
    except TimeoutError: pass
    print(answers, time.monotonic() - began)
"""


def flood(place: Place, relay: Place) -> None:
    """A thousand short requests get no more than the budget for all; a thousand filled ones get every answer."""
    said = place.run("python3", "-c", FLOOD.format(relay=homes.RELAY, port=PORT)).stdout.split()
    short, took, filled = int(said[0]), float(said[1]), int(said[2])
    print(f"of 1000 short requests in {took:.2f} s {short} were answered, of 1000 filled ones {filled}")
    assert 40 <= short <= 40 + 20 * took + 1, "short requests are not answered by their budget"
    assert filled > 950, "filled requests were left unanswered"


class TurnServer:
    """coturn at a place, with two users. A nonce is good for some seconds, so that they are replaced under what runs."""

    def __init__(self, place: Place):
        network.address(place, "eth0", f"{TURN_SERVER_V6}/64")
        place.start(
            str(COTURN / "turnserver"), "-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech", "--fingerprint",
            "--listening-ip", TURN_SERVER, "--relay-ip", TURN_SERVER, "--listening-ip", TURN_SERVER_V6, "--relay-ip", TURN_SERVER_V6,
            "--realm", REALM, "--user", "anna:sesame", "--user", "ben:open",
            f"--stale-nonce={NONCE_S}", "--log-file", "stdout", "--simple-log", "--pidfile", "/run/turnserver.pid",
            "--userdb", "/run/turndb", log="coturn.log",
        )
        listens = lambda: {f"{TURN_SERVER}:{TURN_PORT}", f"[{TURN_SERVER_V6}]:{TURN_PORT}"} <= set(place._tool("ss", "-Hlnu").split())
        wait_for("coturn to listen", listens)


class TurnClient:
    """Our client at a place, typed at and read by the line."""

    def __init__(self, place: Place, carrier: str, username: str, password: str, server: str = TURN_SERVER):
        self.log = place.lab.dir / f"{place.name}-{carrier}-{username}.log"
        at = f"[{server}]:{TURN_PORT}" if ":" in server else f"{server}:{TURN_PORT}"
        words = [str(OURS), carrier, at, username, password, str(LIFETIME_S)]
        with open(self.log, "ab") as out:
            self.process = place.lab._spawn([*place.enter(), *words], env=place.environment(), stdin=subprocess.PIPE, stdout=out, stderr=out)

    def type(self, line: str) -> None:
        """Types a line."""
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def lines(self, word: str) -> list[list[str]]:
        """The rest of each line so far that begins with a word."""
        return [line.split()[1:] for line in self.log.read_text().splitlines() if line.split()[:1] == [word]]

    def said(self, word: str, timeout_s: float = 20) -> list[str]:
        """The rest of the first line that begins with a word, once it is there."""
        return wait_for(f"{self.log.name} to say {word}", lambda: self.lines(word), timeout_s)[0]

    def ping(self, peer: str, count: int, every_ms: int, meanwhile=lambda: None) -> tuple[int, int]:
        """Sends datagrams of 1200 bytes to a peer that sends them back; how many went and how many came back whole."""
        done = len(self.lines("pinged"))
        self.type(f"ping {peer} {count} 1200 {every_ms}")
        deadline = time.monotonic() + count * every_ms / 1000 + 30
        while len(self.lines("pinged")) == done:
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            meanwhile()
            time.sleep(0.5)
        _, sent, back = self.lines("pinged")[-1]
        return int(sent), int(back)


class Pair:
    """Two of our clients that let each other in, and what passes at coturn's cable. `seen` is how coturn sees them."""

    def __init__(self, server: Place, places: tuple[Place, Place], seen: tuple[str, str], carrier: str, at: str = TURN_SERVER):
        self.capture = Capture(server, "eth0", f"{carrier} port {TURN_PORT}")
        self.anna, self.ben = TurnClient(places[0], carrier, "anna", "sesame", at), TurnClient(places[1], carrier, "ben", "open", at)
        (self.anna_at, anna_seen, lifetime), (self.ben_at, ben_seen, _) = self.anna.said("allocated"), self.ben.said("allocated")
        print(f"{carrier}: anna is {anna_seen} and relayed at {self.anna_at}, ben is {ben_seen} and relayed at {self.ben_at}")
        assert (anna_seen.rsplit(":", 1)[0], ben_seen.rsplit(":", 1)[0]) == seen, "coturn sees them at other addresses"
        assert lifetime == str(LIFETIME_S), f"coturn grants {lifetime} s"
        self.anna.type(f"permit {self.ben_at}")
        self.ben.type(f"permit {self.anna_at}")
        deadline = time.monotonic() + 20
        while self.anna.ping(self.ben_at, 1, 10)[1] == 0:
            assert time.monotonic() < deadline, f"nothing comes back\n{self.anna.log.read_text()}\n{self.ben.log.read_text()}"

    def refresh(self) -> None:
        """Has both renew all they were granted."""
        for client in (self.anna, self.ben):
            client.type("refresh")

    def exchange(self, count: int, every_ms: int, meanwhile=lambda: None) -> None:
        """Has datagrams go there and back; none may be lost, none damaged, and nothing fail."""
        sent, back = self.anna.ping(self.ben_at, count, every_ms, meanwhile)
        print(f"of {sent} datagrams of 1200 bytes to {self.ben_at} and back {back} came back whole")
        assert sent == back == count, f"datagrams were lost\n{self.anna.log.read_text()}\n{self.ben.log.read_text()}"
        for client in (self.anna, self.ben):
            wrong = [word for word in ("failed:", "damaged:", "refused") if client.lines(word)]
            assert client.process.poll() is None and not wrong, client.log.read_text()

    def close(self) -> Counter:
        """Gives the allocations back; returns what passed by UDP over IPv4, by kind: a message's type, or `data` in a channel."""
        for client in (self.anna, self.ben):
            client.type("close")
            client.said("closed")
        self.capture.stop()
        kinds = Counter("data" if payload[:1] == b"\x40" else payload[:2].hex() for _, _, payload in self.capture.datagrams())
        if kinds:
            print(f"what passed: {dict(kinds)}")
        return kinds


def two_turn_clients_meet_at_coturn() -> None:
    """Two of our clients behind symmetric NATs exchange datagrams through coturn, over UDP, TCP and IPv6, while nonces grow stale; wrong passwords are named."""
    prepare()
    build_our_client()
    with Lab() as lab:
        internet = homes.build(lab, "symmetric", "symmetric")
        server = homes.server(lab, internet.bridge, "turn", TURN_SERVER)
        TurnServer(server)
        gateways = (internet.a.gateway, internet.b.gateway)
        pair = Pair(server, gateways, NATS, "udp")
        count = 400
        # For twice as long as a nonce is good, while everything is renewed all the time.
        pair.exchange(count, 2000 * NONCE_S // count, meanwhile=pair.refresh)
        passed = pair.close()
        # Each goes to the server and leaves it, there and back; the first may go before there is a channel.
        assert passed["data"] >= 0.95 * 4 * count, "data went otherwise than in channels"
        assert passed[REFRESHED] > 10 and passed[BOUND] > 10, "nothing was renewed"
        assert passed[REFRESH_REFUSED] + passed[BIND_REFUSED] > 0, "no nonce grew stale"
        pair = Pair(server, gateways, NATS, "tcp")
        pair.exchange(200, 20, meanwhile=pair.refresh)
        pair.close()
        # Over IPv6 there is no NAT here.
        network.address(internet.owner, "eth0", "2001:db8::9/64")
        network.address(internet.relay, "eth0", "2001:db8::10/64")
        pair = Pair(server, (internet.owner, internet.relay), ("[2001:db8::9]", "[2001:db8::10]"), "udp", TURN_SERVER_V6)
        assert pair.anna_at.startswith(f"[{TURN_SERVER_V6}]:"), "coturn relays at another kind of address"
        pair.exchange(100, 20, meanwhile=pair.refresh)
        pair.close()
        for username, password in (("anna", "wrong"), ("nobody", "sesame")):
            said = " ".join(TurnClient(internet.a.gateway, "udp", username, password).said("failed:"))
            print(f"{username} with the password {password}: {said}")
            assert "doesn't take this username and password" in said, "a wrong password is called something else"


def turn_clients_outlast_their_allocations() -> None:
    """For eleven minutes, longer than allocations, permissions and channels last, everything is renewed when it is due and no datagram is lost."""
    prepare()
    build_our_client()
    with Lab() as lab:
        internet = homes.build(lab, "symmetric", "symmetric")
        server = homes.server(lab, internet.bridge, "turn", TURN_SERVER)
        TurnServer(server)
        pair = Pair(server, (internet.a.gateway, internet.b.gateway), NATS, "udp")
        pair.exchange(LIFETIME_S + 60, 1000)
        passed = pair.close()
        # Giving them back counts too.
        assert passed[REFRESHED] == 4, "each allocation is renewed once"
        assert passed[BOUND] == 6, "each channel is bound, and renewed twice"


def build_our_client() -> None:
    """Builds the driver. Of the whole workspace, as the tests are built: with other features all would be built again."""
    subprocess.run(["cargo", "build", "-q", "--locked", "--workspace", "--example", "turn"], cwd=ROOT, check=True)


SCENARIOS = [coturn_asks_a_relay, two_turn_clients_meet_at_coturn]
LONG = [turn_clients_outlast_their_allocations]
