"""A gateway in a house that is not empty: another router, a resolver, a provider's IPv6, a user of its own."""

import ipaddress
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import time

from lab import captures, clients, network
from lab.altnet import PYTHON, ROOT, TARGET, Story, altnet
from lab.homes import Home
from lab.places import CannotRunHere, Lab, Place, wait_for

RADVD = TARGET / "ci-tools/radvd/usr/sbin/radvd"
RESOLVER = "203.0.113.53"
METRICS = "127.0.0.1:9586"
# What `altnetd` keeps once it runs: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW (linux/capability.h).
KEPT_CAPABILITIES = 1 << 10 | 1 << 12 | 1 << 13
USER, USER_ID, GROUP_ID = "altnet", 901, 902


def beside_another_router() -> None:
    """Beside another router a gateway is the way to its network alone, and the page opens all the same."""
    prepare()
    with Lab() as lab:
        story = Story(lab)
        home, client = story.internet.a, story.internet.a.client
        router = other_router(lab, home)
        wait_for("the client to take the other router", lambda: routes(client, "default"))
        heard = captures.Capture(client, "eth0", "icmp6 and ip6[40] == 134")
        tell(story, {"gateway-a": configuration(advertise="beside")})
        story.fetch()
        place = altnet(home.gateway, "status")["network"]
        ours, theirs = link_local(home.gateway, "lan"), link_local(router, "eth0")
        assert routes(client, "default") == {theirs}, f"the client's default routes go by {routes(client, 'default')}, not {theirs} alone"
        assert routes(client, place["prefix"]) == {ours}, f"the network goes by {routes(client, place['prefix'])}, not {ours}"
        # What is neither the network's nor on the link goes by the other router, as before.
        client.run("ping", "-6", "-c", "1", "-W", "5", "2001:db8:ffff::1")

        story.stop(home.gateway)
        wait_for("the client to forget the network's route", lambda: not routes(client, place["prefix"]))
        assert routes(client, "default") == {theirs}, "the other router went with the gateway"
        heard.stop()
        said = [said for source, said in advertisements(heard) if source == ours]
        prefix = ipaddress.ip_network(place["prefix"])
        routes_said = [route for each in said for route in each["routes"]]
        print(f"{len(said)} advertisements beside another router: lifetime {[each['lifetime_s'] for each in said]}, routes {routes_said}")
        assert said and all(each["lifetime_s"] == 0 for each in said), "the gateway offers itself as the default router"
        assert {route[0] for route in routes_said} == {prefix}, "it does not offer a route to the network alone"
        assert routes_said[0][1] > 0 and routes_said[-1][1] == 0, "its route does not begin and end with it"


def names_are_forwarded_and_alt_is_not() -> None:
    """Names go to the provider's resolver, long answers by TCP; no name under .alt ever does."""
    prepare()
    with Lab() as lab:
        story = Story(lab)
        gateway, client = story.internet.a.gateway, story.internet.a.client
        upstream = resolver(lab, story, {"www.example": ["192.0.2.80"], "many.example": [f"192.0.2.{last}" for last in range(1, 101)]})
        # As a DHCP client would write it there.
        gateway.path("/etc/resolv.conf").write_text(f"nameserver {RESOLVER}\n")
        wire = captures.Capture(gateway, "wan", "port 53")
        lan = captures.Capture(client, "eth0", "port 53")
        story.tell()
        story.fetch()
        server = clients.resolver(client)

        # Through the client's own stub resolver, which asks again by TCP what came truncated (RFC 7766 section 5).
        assert looked_up(client, "www.example") == {"192.0.2.80"}
        assert len(looked_up(client, "many.example")) == 100, "the long answer did not arrive whole"
        by_udp, by_tcp, none = ask(client, server, ("many.example", "A", "udp"), ("many.example", "A", "tcp"), ("none.example", "A", "udp"))
        assert by_udp["truncated"] and by_tcp["answers"] == 100, f"{by_udp} by UDP, {by_tcp} by TCP"
        assert none["rcode"] == "NXDOMAIN", none

        network_ = altnet(gateway, "status")["network"]
        reverse = ipaddress.ip_address(network_["prefix"].split("/")[0] + "dead").reverse_pointer
        expected = {
            ("wiki.home.alt", "AAAA"): "NOERROR", ("wiki.home.alt", "A"): "NOERROR", ("wiki.home.alt", "TXT"): "NOERROR",
            ("WiKi.HoMe.ALT", "AAAA"): "NOERROR", ("none.home.alt", "AAAA"): "NXDOMAIN", ("wiki.elsewhere.alt", "AAAA"): "NXDOMAIN",
            ("elsewhere.alt", "SOA"): "NXDOMAIN", ("alt", "A"): "NOERROR", ("home.alt", "SOA"): "NOERROR", (reverse, "PTR"): "NXDOMAIN",
        }
        questions = [(name, kind, carrier) for name, kind in expected for carrier in ("udp", "tcp")]
        for (name, kind, carrier), found in zip(questions, ask(client, server, *questions), strict=True):
            print(f"{carrier} {kind:4} {name:20.20} {found['rcode']}, {found['answers']} answers")
            assert found["rcode"] == expected[name, kind], f"{name} {kind} by {carrier}: {found['rcode']}, not {expected[name, kind]}"
        client.run("getent", "ahosts", "wiki.elsewhere.alt", check=False)

        upstream.terminate()
        upstream.wait()
        assert ask(client, server, ("www.example", "A", "udp"))[0]["rcode"] == "SERVFAIL", "a silent resolver is not said to have failed"
        story.fetch()

        for capture in (wire, lan):
            capture.stop()
        seen = (lab.dir / "resolver.log").read_text()
        crossed = [frame.lower() for frame in wire.frames()]
        assert "query[A] many.example" in seen and any(b"\x04many\x07example\x00" in frame for frame in crossed), "the captures see nothing"
        assert any(b"\x03alt\x00" in frame.lower() for frame in lan.frames()), "the client asked for no .alt name"
        assert not any(b"\x03alt\x00" in frame for frame in crossed), "a name under .alt left the house"
        assert not re.search(r"query\[\w+\] \S*(alt|ip6\.arpa) ", seen), "the provider's resolver was asked for a name of ours"
        assert any(frame[23] == 6 for frame in crossed), "nothing was asked for by TCP"


def metrics_move_with_traffic() -> None:
    """Prometheus metrics over HTTP on a joined gateway: well formed, and they move with traffic."""
    with Lab() as lab:
        page = captures.canary() * 8000
        story = Story(lab, page=page)
        tell(story, {f"gateway-{letter}": configuration(more=f'[metrics]\nlisten = "{METRICS}"\n') for letter in "ab"})
        story.fetch()
        gateways = [home.gateway for home in story.internet.homes]
        before = [metrics(gateway) for gateway in gateways]
        assert story.fetch() == page
        after = [metrics(gateway) for gateway in gateways]

        def moved(at: int, sample: str) -> float:
            return after[at][sample] - before[at][sample]

        for at, sample in [
            (0, "altnet_delivered_bytes_total"), (1, "altnet_sealed_bytes_total"),
            (0, 'altnet_peer_bytes_total{peer="house-b",way="received"}'), (1, 'altnet_peer_bytes_total{peer="house-a",way="sent"}'),
        ]:
            print(f"{gateways[at].name}: {sample} +{moved(at, sample):g} for a page of {len(page)} bytes")
            # Headers, acknowledgements and records come on top; a page is not carried twice.
            assert len(page) < moved(at, sample) < 2 * len(page), f"{sample} did not move with the page"
        for each in after:
            assert sum(value for sample, value in each.items() if sample.startswith("altnet_peers{")) >= 1
            assert each["altnet_unsaved_slots"] == 0

        # A machine that no record names: refused, and counted by the reason's name.
        there = ipaddress.ip_address(clients.address(story.internet.b.client))
        client = story.internet.a.client
        client.run("curl", "--silent", "--max-time", "2", f"http://[{there + 1}]/", check=False)
        now = metrics(gateways[0])
        refused = {sample: value - after[0][sample] for sample, value in now.items() if sample.startswith("altnet_dropped_total") and value > after[0][sample]}
        print(f"refused for {refused}")
        assert refused, "a refused packet is not counted"
        assert client.run("curl", "--silent", "--max-time", "2", f"http://{METRICS}/metrics", check=False).returncode, "metrics are on the LAN"


def leave_and_come_back() -> None:
    """A member that leaves takes back all it changed and says so; a new invite brings it back."""
    with Lab() as lab:
        story = Story(lab)
        gateway, client, owner = story.internet.a.gateway, story.internet.a.client, story.internet.owner
        gateway.sysctl("net.ipv6.conf.all.forwarding=0")  # so that turning it on is the daemon's doing
        found = settings(gateway)
        story.tell()
        story.fetch()
        prefix = altnet(gateway, "status")["network"]["prefix"]
        assert settings(gateway) != found, "a member changes nothing"
        assert any(of_the_network(name) for name in state(gateway)), f"a member keeps nothing: {state(gateway)}"

        asked = gateway.run("altnet", "leave", check=False)
        print(asked.stderr.strip())
        assert asked.returncode == 1 and altnet(gateway, "status")["state"] == "member", "it left without being asked twice"
        print(gateway.run("altnet", "leave", "--yes").stdout.strip())
        # What is on disk when leaving is confirmed.
        kept = state(gateway)
        assert not any(map(of_the_network, kept)), f"left behind: {kept}"
        assert altnet(gateway, "status")["state"] == "outside"
        wait_for("the kernel to be as it was found", lambda: settings(gateway) == found, timeout_s=5)
        wait_for("the client to let go of the router", lambda: not routes(client, "default") and not routes(client, prefix), timeout_s=5)
        again = gateway.run("altnet", "leave", "--yes", check=False)
        print(again.stderr.strip())
        assert again.returncode == 1, "it left twice"
        story.stop(gateway)
        story.start(gateway)
        assert altnet(gateway, "status")["state"] == "outside", "restarting made it a member again"

        link = owner.run("altnet-provision", "invite", "create", "--name", "house-c", "--role", "gateway", "--site", "3", "--no-qr").stdout
        print(gateway.run("altnet", "join", link.strip(), timeout_s=60).stdout.strip())
        assert altnet(gateway, "status")["network"]["name"] == "house-c"
        assert story.fetch(), "no page"


def a_user_of_its_own() -> None:
    """With `user` in its file altnetd keeps three capabilities and works on: rotation, a LAN that comes back, restarts."""
    with Lab() as lab:
        lab.dir.chmod(0o755)  # so that the file can be read again, as in /etc
        story = Story(lab)
        gateway = story.internet.a.gateway
        file = gateway.folder / "altnet.toml"
        with open(gateway.path("/etc/passwd"), "a") as passwd:
            passwd.write(f"{USER}:x:{USER_ID}:{GROUP_ID}::/nonexistent:/usr/sbin/nologin\n")
        tell(story, {gateway.name: configuration(f'user = "{USER}"\n')})
        story.fetch()
        print(held(story, gateway, USER_ID, GROUP_ID))

        assert altnet(gateway, "rotate")["epoch"] == 2
        story.fetch()
        held(story, gateway, USER_ID, GROUP_ID)
        # New sockets on port 53 and for advertisements, a new address and a new route.
        gateway.ip("link", "delete", "lan")
        network.bridge(gateway, "lan", "lan1")
        network.address(gateway, "lan", "192.168.1.1/24")
        # Much sooner than the look that is taken once a minute anyway.
        address = altnet(gateway, "status")["lans"][0]["address"]
        wait_for("the LAN's new interface to be served", lambda: address in gateway.ip("-6", "address", "show", "dev", "lan"), timeout_s=5)
        story.fetch()
        file.write_text(configuration(f'user = "{USER}"\nlog = "debug"\n'))
        for pid in story.running(gateway):
            os.kill(pid, signal.SIGHUP)
        wait_for("the file to be read again", lambda: "configuration read again" in story.log(gateway))
        file.write_text(configuration(f'user = "{USER}"\nlisten_port = 51821\n'))
        assert altnet(gateway, "config", "reload") == {"restart": ["listen_port"]}
        file.write_text("listen_port = true\n")
        refused = gateway.run("altnet", "config", "reload", check=False)
        assert refused.returncode and "listen_port" in refused.stderr and "stays" in refused.stderr, refused.stderr
        file.write_text(configuration(f'user = "{USER}"\nlog = "debug"\n'))

        member = altnet(gateway, "status")["network"]["member"]
        for number in (signal.SIGKILL, signal.SIGTERM):
            story.stop(gateway, number)
            story.start(gateway)
            held(story, gateway, USER_ID, GROUP_ID)
            assert altnet(gateway, "status")["network"]["member"] == member
        # Back to root, which then lacks the capability to write another user's files, and to the user again.
        for epoch, user, (uid, gid) in ((3, "", (0, 0)), (4, f'user = "{USER}"\n', (USER_ID, GROUP_ID))):
            story.stop(gateway, signal.SIGKILL)
            file.write_text(configuration(user))
            story.start(gateway)
            assert altnet(gateway, "rotate")["epoch"] == epoch
            print(held(story, gateway, uid, gid))
            assert story.fetch(), "no page"


def a_restored_gateway_has_a_new_key() -> None:
    """State that is copied back from a backup: the tunnel key is replaced at once, and the page comes; a restart alone replaces nothing."""
    with Lab() as lab:
        story = Story(lab)
        gateway = story.internet.b.gateway
        story.tell()
        story.fetch()
        state = gateway.path("/var/lib/altnet")
        backup = gateway.folder / "backup"
        subprocess.run(["cp", "-a", state, backup], check=True)
        assert altnet(gateway, "rotate")["epoch"] == 2
        story.stop(gateway)
        story.start(gateway)
        assert altnet(gateway, "status")["network"]["tunnel_epoch"] == 2, "a restart replaced the key"

        story.stop(gateway, signal.SIGKILL)
        shutil.rmtree(state)
        subprocess.run(["cp", "-a", backup, state], check=True)
        story.start(gateway)
        assert "restored from a copy" in story.log(gateway), "the restore was not noticed"
        epoch = altnet(gateway, "status")["network"]["tunnel_epoch"]
        assert epoch == 2, f"epoch {epoch} instead of the one after the backup's"
        story.fetch()
        story.stop(gateway)
        story.start(gateway)
        assert altnet(gateway, "status")["network"]["tunnel_epoch"] == epoch, "noticed a second time"


def accept_ra_uplink_survives_forwarding() -> None:
    """A gateway whose provider's IPv6 comes by router advertisements keeps it when altnetd turns forwarding on."""
    prepare()
    with Lab() as lab:
        story = Story(lab)
        home, gateway, client = story.internet.a, story.internet.a.gateway, story.internet.a.client
        gateway.sysctl("net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.wan.accept_ra=1")
        provider = advertise(home.isp, "line", "2001:db8:1::", lifetime_s=9)
        wait_for("the gateway to have its provider's IPv6", lambda: routes(gateway, "default") == {provider} and uplink(gateway))
        beyond = ["ping", "-6", "-c", "1", "-W", "5", "2001:db8:ffff::1"]
        gateway.run(*beyond)
        wire = captures.Capture(gateway, "wan", "ip6")
        story.tell()
        story.fetch()
        assert gateway.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout.strip() == "1", "altnetd did not turn forwarding on"

        # One that is not heard any more only runs down; one that is heard is longer again.
        lives = [uplink(gateway)]
        wait_for("the provider's next advertisements to be taken", lambda: renewed(lives, uplink(gateway)) >= 2, timeout_s=15)
        assert routes(gateway, "default") == {provider}, f"the default route went to {routes(gateway, 'default')}"
        gateway.run(*beyond)
        print(f"seconds left of the provider's prefix: {lives}")

        # The client has none of the provider's addresses: it is told at once that there is no way, and nothing leaks.
        asked = time.monotonic()
        answer = client.run(*beyond, check=False).stdout
        print(f"to beyond from the client: {answer.splitlines()[1]}")
        assert "nreachable" in answer and time.monotonic() - asked < 2, f"no refusal at once: {answer}"
        prefix = ipaddress.ip_network(altnet(gateway, "status")["network"]["prefix"])
        wire.stop()
        sources = {ipaddress.IPv6Address(frame[22:38]) for frame in wire.frames()}
        assert sources and not [source for source in sources if source in prefix], f"{prefix} went out to the provider: {sources}"

        story.stop(gateway)
        after = gateway.run("sysctl", "-n", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.wan.accept_ra").stdout.split()
        assert after == ["0", "1"], f"forwarding and accept_ra are left at {after}"
        assert routes(gateway, "default") == {provider}, "the uplink ended with altnetd"


def prepare() -> None:
    """Fetches the other router and the resolver."""
    if subprocess.run([ROOT / "ci/install", "house"]).returncode or not RADVD.exists():
        raise CannotRunHere("radvd or dnsmasq could not be had")


def configuration(top: str = "", advertise: str = "router", more: str = "") -> str:
    """The README's file, with keys before its `[[lan]]` and tables after it."""
    return f'{top}\n[[lan]]\ninterface = "lan"\nadvertise = "{advertise}"\n{more}'


def tell(story: Story, files: dict[str, str]) -> None:
    """Tells the README's story with other configurations at some places."""

    def before(step) -> None:
        if step.daemon and step.place in files:
            (story.place(step.place).folder / "altnet.toml").write_text(files[step.place])

    story.tell(before)


def other_router(lab: Lab, home: Home) -> Place:
    """Puts a second router on a home's LAN, the default one, with a machine beyond it."""
    router = lab.place("router")
    network.cable(router, "eth0", home.gateway, "lan2")
    home.gateway.ip("link", "set", "lan2", "master", "lan")
    advertise(router, "eth0", "2001:db8:2::")
    return router


def advertise(place: Place, interface: str, prefix: str, lifetime_s: int = 60) -> str:
    """Makes a place an IPv6 router by radvd on `interface`; returns its link-local address there."""
    network.forward(place)
    network.address(place, interface, f"{prefix}1/64")
    network.address(place, "lo", "2001:db8:ffff::1/128")
    (place.folder / "radvd.conf").write_text(
        f"interface {interface} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime {lifetime_s};"
        f" prefix {prefix}/64 {{ AdvValidLifetime {lifetime_s}; AdvPreferredLifetime {lifetime_s}; }}; }};\n"
    )
    place.start(str(RADVD), "--nodaemon", "--logmethod", "stderr", "--config", "radvd.conf", "--pidfile", "/run/radvd.pid",
                log=f"{place.name}-radvd.log")
    return link_local(place, interface)


def resolver(lab: Lab, story: Story, names: dict[str, list[str]]) -> subprocess.Popen:
    """Puts a resolver on the internet that knows `names`, and logs what it is asked."""
    place, internet = lab.place("resolver"), story.internet.bridge
    network.cable(place, "eth0", internet, "resolver")
    internet.ip("link", "set", "resolver", "master", "br0")
    network.address(place, "eth0", f"{RESOLVER}/24")
    network.route_by(place, "203.0.113.1")
    hosts = place.folder / "hosts"
    hosts.write_text("".join(f"{address} {name}\n" for name, addresses in names.items() for address in addresses))
    lab.dir.chmod(0o755)  # it drops privileges
    started = place.start(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", "--local=/example/",
        "--log-queries", "--log-facility=-", "--user=root", log="resolver.log",
    )
    wait_for("the resolver", lambda: ":53" in place._tool("ss", "-Hltn"))
    return started


# Run in a place: questions to one resolver, and what comes back, as a person would see it with dig.
ASK = """
import json, os, socket, struct, sys
rcodes = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
kinds = {"A": 1, "SOA": 6, "PTR": 12, "TXT": 16, "AAAA": 28}
def ask(name, kind, carrier):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    id = os.urandom(2)
    query = id + struct.pack(">HHHHH", 0x100, 1, 0, 0, 0) + labels + bytes(1) + struct.pack(">HH", kinds[kind], 1)
    asking = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if carrier == "tcp" else socket.SOCK_DGRAM)
    asking.settimeout(10)
    asking.connect((sys.argv[1], 53))
    if carrier == "tcp":
        asking.sendall(struct.pack(">H", len(query)) + query)
        stream = asking.makefile("rb")
        answer = stream.read(struct.unpack(">H", stream.read(2))[0])
    else:
        asking.send(query)
        answer = asking.recv(65535)
    assert answer[:2] == id and answer[12:len(query)].lower() == query[12:].lower(), answer
    flags, _, answers = struct.unpack_from(">HHH", answer, 2)
    return {"rcode": rcodes.get(flags & 15, flags & 15), "truncated": bool(flags & 0x200), "answers": answers}
print(json.dumps([ask(*question) for question in json.load(sys.stdin)]))
"""


def ask(place: Place, server: str, *questions: tuple[str, str, str]) -> list[dict]:
    """Asks a resolver for names, kinds, by udp or tcp: of each its `rcode`, whether it was `truncated`, how many `answers`."""
    return json.loads(place.run(PYTHON, "-c", ASK, server, stdin=json.dumps(questions)).stdout)


def looked_up(place: Place, name: str) -> set[str]:
    """The IPv4 addresses of a name by the place's own stub resolver."""
    return {line.split()[0] for line in place.run("getent", "ahostsv4", name).stdout.splitlines()}


def metrics(place: Place) -> dict[str, float]:
    """The metrics of a place's daemon by HTTP; raises unless each is announced with a type before it comes."""
    answer = place.run("curl", "--silent", "--fail", "--include", f"http://{METRICS}/metrics").stdout
    head, _, text = answer.partition("\r\n\r\n" if "\r\n\r\n" in answer else "\n\n")
    assert re.search(r"content-type: text/plain; version=0\.0\.4", head, re.IGNORECASE), head
    found, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            kinds[line.split()[2]] = line.split()[3]
        elif not line.startswith("#"):
            sample, _, value = line.rpartition(" ")
            name = re.fullmatch(r'([a-z_]+)(\{(\w+="[^"]*",?)+\})?', sample)
            assert name and kinds.get(name[1]) in ("counter", "gauge"), f"not a sample of a known metric: {line}"
            assert sample not in found, f"{sample} comes twice"
            found[sample] = float(value)
    return found


def routes(place: Place, destination: str) -> set[str]:
    """The gateways by which a place reaches a destination of its routing table."""
    found = json.loads(place.ip("-j", "-6", "route", "show", "exact", destination) or "[]")
    hops = [hop for route in found for hop in route.get("nexthops", [route])]
    return {hop["gateway"] for hop in hops if "gateway" in hop}


def link_local(place: Place, interface: str) -> str:
    """The link-local address of an interface, once it is usable."""

    def found() -> str | None:
        for link in json.loads(place.ip("-j", "-6", "address", "show", "dev", interface, "scope", "link")):
            for entry in link.get("addr_info", []):
                if "local" in entry:
                    return entry["local"]
        return None

    return wait_for(f"a link-local address of {place.name}", found)


def advertisements(capture: captures.Capture):
    """The router advertisements of a capture: from whom, router lifetime in seconds, and routes with theirs (RFC 4191 section 2.3)."""
    for frame in capture.frames():
        message, said = frame[captures.ETHERNET + 40 :], []
        at = 16
        while at < len(message):
            kind, units = message[at], message[at + 1]
            if kind == 24:
                prefix = message[at + 8 : at + 8 * units].ljust(16, b"\0")
                lifetime_s = struct.unpack_from(">I", message, at + 4)[0]
                said.append((ipaddress.IPv6Network((prefix, message[at + 2])), lifetime_s))
            at += 8 * units
        source = str(ipaddress.IPv6Address(frame[22:38]))
        yield source, {"lifetime_s": struct.unpack_from(">H", message, 6)[0], "routes": said}


def settings(place: Place) -> dict:
    """What a daemon may change in a place's kernel: addresses, routes, rules, and whether it forwards."""
    addresses = json.loads(place.ip("-j", "-6", "address", "show", "scope", "global"))
    return {
        "addresses": sorted((link["ifname"], entry["local"]) for link in addresses if link for entry in link["addr_info"] if entry),
        "routes": sorted(line for line in place.ip("-6", "route", "show").splitlines() if not line.startswith("fe80::")),
        "rules": place.ip("-6", "rule", "show"),
        "settings": place.run("sysctl", "-a", "--pattern", r"^net\.ipv6\.conf\.(all|default|lan|wan)\.(forwarding|accept_ra)$").stdout,
    }


def state(place: Place) -> list[str]:
    """The names of what a place's node keeps on disk."""
    return sorted(path.name for path in place.path("/var/lib/altnet").iterdir())


def of_the_network(name: str) -> bool:
    """Whether a file of the state directory belongs to a membership rather than to the device."""
    return name.startswith(("record-", "network", "issuer", "cursor", "path-"))


def held(story: Story, place: Place, user: int, group: int) -> str:
    """Holds a running daemon to `user` and three capabilities, in every thread, and its files to the same user."""
    (pid,) = story.running(place)
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert set(found["Uid"].split()) == {str(user)} and set(found["Gid"].split()) == {str(group)}, f"runs as {found['Uid']}"
        assert user == 0 or not found["Groups"].split(), f"is still in groups {found['Groups']}"
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            assert int(found[kind], 16) == KEPT_CAPABILITIES, f"{kind} is {found[kind]}"
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0 and found["NoNewPrivs"] == "1"
    for folder, mode in (("/var/lib/altnet", 0o700), ("/run/altnet", 0o755)):
        root = place.path(folder)
        assert root.stat().st_mode & 0o777 == mode, f"{folder} has mode {root.stat().st_mode:o}"
        # A socket is made before privileges are dropped, and its permissions are asked of the daemon.
        for path in (root, *(path for path in root.iterdir() if path.is_file())):
            owner = path.stat()
            assert (owner.st_uid, owner.st_gid) == (user, group), f"{path} belongs to {owner.st_uid}:{owner.st_gid}"
    return f"user {found['Uid'].split()[0]}, CapEff {found['CapEff']}, {len(state(place))} files of its own"


def uplink(place: Place) -> int | None:
    """How long the address of the provider's prefix still holds, in seconds."""
    for link in json.loads(place.ip("-j", "-6", "address", "show", "dev", "wan", "scope", "global")):
        for entry in link.get("addr_info", []):
            if entry.get("dynamic"):
                return entry["valid_life_time"]
    return None


def renewed(lives: list, now: int | None) -> int:
    """Notes how long something still holds; returns how often it was made longer so far."""
    assert now, "the provider's address is gone"
    if now != lives[-1]:
        lives.append(now)
    return sum(later > earlier for earlier, later in zip(lives, lives[1:]))


SCENARIOS = [
    beside_another_router, names_are_forwarded_and_alt_is_not, metrics_move_with_traffic, leave_and_come_back, a_user_of_its_own,
    accept_ra_uplink_survives_forwarding, a_restored_gateway_has_a_new_key,
]
