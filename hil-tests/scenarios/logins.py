"""Machines without software: who logged in from them decides what they reach (ADR 0008)."""

import ipaddress
import json
import os
import re
import signal
import subprocess
import time

from lab import captures, clients, network
from lab.altnet import ROOT, TARGET, Story, altnet
from lab.places import CannotRunHere, Lab, Place, wait_for
from scenarios.house import METRICS, configuration, metrics, tell

GROUP, GROUP_ID = "altnet-login", 4711

# Ann reaches the wiki; house A may say who she is.
POLICY = """
[people]
ann = {}
bob = {}

[[rules]]
name = "ann-reads"
from = ["person:ann"]
to = ["host:wiki"]
services = ["tcp/80", "ping"]

[[logins]]
at = ["site:1"]
of = ["person:ann"]
"""


class House:
    """House A with a login page, and a neighbour beside client A on its LAN."""

    def __init__(self, lab: Lab, policy: str = POLICY, more: str = ""):
        self.story = Story(lab, "portcone", "public")
        self.gateway, self.client = self.story.internet.a.gateway, self.story.internet.a.client
        with open(self.gateway.path("/etc/group"), "a") as groups:
            groups.write(f"{GROUP}:x:{GROUP_ID}:\n")
        self.neighbour = lab.place("neighbour-a")
        network.cable(self.gateway, "lan2", self.neighbour, "eth0")
        clients.listen_for_advertisements(self.neighbour)
        tell(self.story, {self.gateway.name: configuration(more=f'[login]\ngroup = "{GROUP}"\n{more}')})
        self.gateway.ip("link", "set", "lan2", "master", "lan")
        self.story.fetch()
        owner = self.story.internet.owner
        (owner.folder / "logins.toml").write_text(policy)
        owner.run("altnet-provision", "policy", "publish", "logins.toml", "--yes")
        for home in self.story.internet.homes:
            wait_for("the policy to be in force", lambda: altnet(home.gateway, "policy", "show")["rules"] == policy.count("[[rules]]"))

    def reads(self, place: Place, *words: str) -> bool:
        """Whether the wiki's page comes, asked for once."""
        done = place.run("curl", "-6", "--silent", "--fail", "--max-time", "5", *words, self.story.url(), check=False)
        return done.returncode == 0

    def logins(self) -> list[dict]:
        """Who is logged in at house A."""
        return altnet(self.gateway, "login", "list")["logins"]


def a_person_is_judged_on_a_machine_without_software() -> None:
    """A laptop that nothing runs on reaches what Ann may while she is logged in from it, at every address of its own, and nobody else does."""
    with Lab() as lab:
        house = House(lab)
        client, neighbour, gateway = house.client, house.neighbour, house.gateway
        address = clients.address(client)
        clients.resolver(neighbour)
        assert not house.reads(client) and not house.reads(neighbour), "a machine reads what only Ann may"

        refused = gateway.run("altnet", "login", "add", address, "--person", "bob", check=False)
        assert refused.returncode and "[[logins]]" in refused.stderr, refused
        added = altnet(gateway, "login", "add", address, "--person", "ann", "--hours", "1")
        assert added["device"] == clients.mac(client) and address in added["addresses"], added
        # The other gateway hears of it within a round trip, or two if one is lost.
        wait_for("Ann to read", lambda: house.reads(client), timeout_s=3)
        assert not house.reads(neighbour), "a neighbour reads what Ann may"
        far = altnet(house.story.internet.b.gateway, "login", "list")["counted"]
        assert [(one["address"], one["gateway"], one["person"]) for one in far] == [(address, "house-a", "ann")], far
        verdict = json.loads(gateway.run("altnet", "policy", "check", address, "wiki", "80", "--json").stdout)
        assert verdict["rule"] == "ann-reads" and "ann is logged in" in verdict["source_is"], verdict
        print("Ann reads, her neighbour doesn't")

        # Another address of the same machine, as privacy extensions make one (RFC 8981): nobody has seen it before.
        prefix = address.rsplit(":", 4)[0]
        other = f"{prefix}:a1:b2:c3:d4"
        client.ip("address", "add", f"{other}/64", "dev", "eth0", "nodad")
        assert house.reads(client, "--interface", other), "the first packet from a new address is refused"
        assert other in house.logins()[0]["addresses"]
        # A neighbour takes that address on when the machine has given it up.
        client.ip("address", "delete", f"{other}/64", "dev", "eth0")
        neighbour.ip("address", "add", f"{other}/64", "dev", "eth0", "nodad")
        neighbour.ip("neighbour", "flush", "dev", "eth0")  # so that it asks for the gateway, and says who it is
        neighbour.run("ping", "-6", "-c", "1", "-W", "2", "-I", other, altnet(gateway, "status")["lans"][0]["address"], check=False)
        wait_for("the address to count as nobody's", lambda: other not in house.logins()[0]["addresses"])
        assert not house.reads(neighbour, "--interface", other), "an address took Ann's rights along"
        print("at every address of its own")

        gateway.run("altnet", "login", "end", clients.mac(client))
        assert not house.reads(client), "Ann is logged out and reads on"
        entries = [(entry["kind"], entry["subject"]) for entry in audit(gateway)]
        assert ("logged-in", "ann") in entries and ("logged-out", "ann") in entries, entries
        # Who isn't of the group may do nothing, and who is may log in and out, and no more.
        asked = {user: ask_as(gateway, user, group) for user, group in ((4712, 4712), (4711, GROUP_ID))}
        assert asked == {4712: {"logins": "forbidden", "rotate": "forbidden"}, 4711: {"logins": "answered", "rotate": "forbidden"}}, asked


# Everybody reads the wiki, but guests may only ping it; house A may say who is a guest.
GUESTS = """
[groups]
guests = []

[profiles.guests]
only_named = true

[[rules]]
name = "everybody-reads"
from = ["members"]
to = ["host:wiki"]
services = ["tcp/80"]

[[rules]]
name = "guests-ping"
from = ["group:guests"]
to = ["host:wiki"]
services = ["ping"]

[[logins]]
at = ["site:1"]
of = ["group:guests"]
"""

# A machine begins a connection from an address that it doesn't answer at.
FORGE = """
import socket, struct, sys
port, router, own, source, target = sys.argv[1:]
source, target = (socket.inet_pton(socket.AF_INET6, text) for text in (source, target))
segment = struct.pack(">HHIIBBHHH", 4711, 80, 1, 0, 5 << 4, 2, 1024, 0, 0)
words = struct.unpack(">30H", source + target + struct.pack(">II", len(segment), 6) + segment)
total = sum(words)
while total >> 16:
    total = (total & 0xffff) + (total >> 16)
segment = segment[:16] + struct.pack(">H", ~total & 0xffff) + segment[18:]
frame = bytes.fromhex(router + own + "86dd") + struct.pack(">IHBB", 6 << 28, len(segment), 6, 64) + source + target + segment
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((port, 0))
out.send(frame)
"""


def a_machine_is_judged_by_where_it_is_plugged_in() -> None:
    """What is plugged into the port for guests is a guest at both ends, until it is plugged in elsewhere; who can't be placed may do nothing."""
    with Lab() as lab:
        sections = f'[metrics]\nlisten = "{METRICS}"\n[[machines]]\ngroups = ["guests"]\nport = "lan2"\n'
        house = House(lab, GUESTS, sections)
        client, guest, gateway, far = house.client, house.neighbour, house.gateway, house.story.internet.b.gateway
        clients.resolver(guest)
        pings = ("ping", "-6", "-c", "1", "-W", "5", "wiki.home.alt")
        wait_for("the client to read", lambda: house.reads(client), timeout_s=10)
        wait_for("the guest to ping", lambda: guest.run(*pings, check=False).returncode == 0, timeout_s=10)
        assert not house.reads(guest), "a guest reads"
        assert client.run(*pings, check=False).returncode, "whoever is no guest does what only guests may"
        address = clients.address(guest)
        placed = altnet(gateway, "login", "list")["placed"]
        assert [(one["device"], one["port"], one["groups"]) for one in placed] == [(clients.mac(guest), "lan2", ["guests"])], placed
        told = [one for one in altnet(far, "login", "list")["counted"] if one["address"] == address]
        assert told and told[0]["groups"] == ["guests"] and told[0]["gateway"] == "house-a", told
        verdict = json.loads(far.run("altnet", "policy", "check", address, "wiki", "80", "--json", check=False).stdout)
        assert not verdict["allowed"] and "in guests" in verdict["source_is"], verdict
        print("a guest at both ends")

        plug(gateway, "lan2", "lan9")
        wait_for("the guest to read at another port", lambda: house.reads(guest), timeout_s=20)
        assert not altnet(gateway, "login", "list")["placed"]
        plug(gateway, "lan9", "lan2")
        wait_for("the guest to be one again", lambda: not house.reads(guest), timeout_s=20)
        print("wherever it is plugged in")

        # The configuration can be read again, and whoever logs in there is a guest all the same.
        reload(house.story, gateway, configuration(more=f'[login]\ngroup = "{GROUP}"\n[metrics]\nlisten = "{METRICS}"\n'))
        wait_for("the guest to read where no port is for guests", lambda: house.reads(guest), timeout_s=20)
        reload(house.story, gateway, configuration(more=f'[login]\ngroup = "{GROUP}"\n{sections}'))
        wait_for("the port to be for guests again", lambda: not house.reads(guest), timeout_s=20)
        assert altnet(gateway, "login", "list")["placed"][0]["port"] == "lan2"

        wiki = next(one["address"] for one in altnet(far, "host", "list")["hosts"] if one["name"] == "wiki")
        router = json.loads(gateway.ip("-j", "link", "show", "dev", "lan"))[0]["address"]
        forged = f"{address.rsplit(':', 4)[0]}:dead:beef:dead:beef"
        seen = captures.Capture(house.story.internet.b.client, "eth0", "ip6 and tcp port 80")
        before = metrics(gateway)["altnet_unplaced_packets_total"]
        client.run("python3", "-c", FORGE, "eth0", router.replace(":", ""), clients.mac(client).replace(":", ""), forged, wiki)
        wait_for("the packet to be dropped", lambda: metrics(gateway)["altnet_unplaced_packets_total"] > before)
        assert house.reads(client)
        seen.stop()
        source = ipaddress.ip_address(forged).packed
        frames = list(seen.frames())
        assert frames and not any(source in frame for frame in frames), "a packet of nobody's went through"


def reload(story: Story, gateway: Place, text: str) -> None:
    """Has altnetd read another configuration."""
    (gateway.folder / "altnet.toml").write_text(text)
    for pid in story.running(gateway):
        os.kill(pid, signal.SIGHUP)


def plug(gateway: Place, port: str, into: str) -> None:
    """Has a port of a gateway's bridge be another, as if the cable were moved."""
    for words in (("down",), ("name", into)):
        gateway.ip("link", "set", port, *words)
    gateway.ip("link", "set", into, "up")


# Asks altnetd's socket for two things as another user.
ASK = """
import json, os, socket, sys
user, group = map(int, sys.argv[1:])
os.setgroups([]); os.setgid(group); os.setuid(user)
def ask(method):
    asking = socket.socket(socket.AF_UNIX)
    asking.connect("/run/altnet/altnet.sock")
    asking.sendall(json.dumps({"v": 1, "id": 1, "method": method, "params": {}}).encode() + b"\\n")
    answer = json.loads(asking.makefile().readline())
    return answer["error"]["code"] if "error" in answer else "answered"
print(json.dumps({method: ask(method) for method in ("logins", "rotate")}))
"""


def ask_as(gateway: Place, user: int, group: int) -> dict:
    """What altnetd lets a user do."""
    return json.loads(gateway.run("python3", "-c", ASK, str(user), str(group)).stdout)


def audit(gateway: Place) -> list[dict]:
    """The newest entries of a gateway's audit log."""
    return [json.loads(line) for line in gateway.run("altnet", "audit", "export").stdout.splitlines()]


# Who may log in, and as whom: with codes, and with passwords that an LDAP server knows.
LOGIN = """
state_directory = "/run/altnet-login"

[[ldap]]
name = "the house's directory"
groups = {{ "cn=readers,dc=house" = "readers" }}
[ldap.server]
url = "ldap://127.0.0.1:3389"
base = "dc=house"
bind_dn = "cn=gateway,dc=house"
bind_password_file = "{password}"
"""

DIRECTORY = """
dn: dc=house
objectClass: dcObject
objectClass: organization
o: house
dc: house

dn: cn=gateway,dc=house
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: gateway
userPassword: its own

dn: uid=carl,dc=house
objectClass: inetOrgPerson
uid: carl
cn: Carl
sn: C
userPassword: open sesame

dn: cn=readers,dc=house
objectClass: groupOfNames
cn: readers
member: uid=carl,dc=house
member: cn=gateway,dc=house
"""

READERS = POLICY.replace('from = ["person:ann"]', 'from = ["person:ann", "group:readers"]').replace(
    'of = ["person:ann"]', 'of = ["person:ann", "group:readers"]') + """
[groups]
readers = []
"""


class Directory:
    """An LDAP server on a place's loopback."""

    def __init__(self, place: Place):
        unpacked = TARGET / "ci-tools/slapd"
        folder = place.folder / "slapd"
        (folder / "db").mkdir(parents=True)
        schemas = "".join(f"include {unpacked}/etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
        (folder / "slapd.conf").write_text(
            f"{schemas}modulepath {unpacked}/usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\n"
            f"database mdb\nsuffix dc=house\nrootdn cn=admin,dc=house\nrootpw admin\ndirectory {folder}/db\n"
            "access to attrs=userPassword by anonymous auth by * none\naccess to * by dn.exact=cn=gateway,dc=house read by * none\n"
            "overlay memberof\nmemberof-refint true\n"
        )
        libraries = ":".join(str(entry) for entry in (unpacked / "usr/lib").iterdir())
        self.place = place
        self.server = place.start(str(unpacked / "usr/sbin/slapd"), "-d", "0", "-f", f"{folder}/slapd.conf", "-h", "ldap://127.0.0.1:3389",
                                  log=f"{place.name}-slapd.log", env={"LD_LIBRARY_PATH": libraries})
        wait_for("slapd", lambda: ":3389" in place._tool("ss", "-Hltn"))
        self.change("ldapadd", DIRECTORY)

    def change(self, tool: str, text: str) -> None:
        """Changes entries as the directory's administrator."""
        self.place.run(tool, "-x", "-H", "ldap://127.0.0.1:3389", "-D", "cn=admin,dc=house", "-w", "admin", stdin=text)


class Browser:
    """A browser on a client: remembers cookies and fills in forms."""

    def __init__(self, client: Place, scheme: str = "http", *more: str):
        self.client, self.url = client, f"{scheme}://login.home.alt"
        self.curl = ("curl", "-6", "--silent", "--max-time", "20", "--cookie", "cookies", "--cookie-jar", "cookies", *more)

    def page(self) -> str:
        """The page as it is now."""
        return self.client.run(*self.curl, f"{self.url}/").stdout

    def send(self, path: str, **fields: str) -> tuple[int, str]:
        """Fills in a form of the page; the status and what comes back."""
        token = re.search(r'name="token" value="([^"]+)"', self.page())
        words = [word for name, value in {"token": token.group(1), **fields}.items() for word in ("--data-urlencode", f"{name}={value}")]
        answer = self.client.run(*self.curl, "--write-out", "\n%{http_code}", *words, f"{self.url}{path}").stdout
        body, _, status = answer.rpartition("\n")
        return int(status), body


def people_log_in_on_the_page() -> None:
    """The login page of house A, in a browser on a machine that runs nothing of ours: by code and by LDAP, and out again within a minute of the directory's word."""
    if subprocess.run([ROOT / "ci/install", "directories"]).returncode:
        raise CannotRunHere("slapd could not be installed")
    with Lab() as lab:
        lab.dir.chmod(0o755)
        house = House(lab, READERS)
        gateway, client = house.gateway, house.client
        add_user(gateway)
        directory = Directory(gateway)
        password = gateway.folder / "bind-password"
        password.write_text("its own\n")
        password.chmod(0o600)
        (gateway.folder / "login.toml").write_text(LOGIN.format(password=password))
        page = serve(lab, gateway)
        browser = Browser(client)
        assert "the house&#39;s directory" in browser.page(), browser.page()
        assert not house.reads(client)
        # Whoever asks for a page that nobody may see here is led to the login page (RFC 6585 section 6), and back.
        wiki = house.story.url()
        led = client.run("curl", "-6", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}", wiki).stdout
        onward = re.search(r'content="0; url=([^"]+)"', led)
        assert led.endswith("\n511") and onward and onward.group(1).startswith(f"{browser.url}/?from="), led
        assert "Go on to" not in client.run(*browser.curl, onward.group(1)).stdout

        code = json.loads(gateway.run("altnet-login", "code", "create", "--config", "login.toml", "--person", "ann", "--json").stdout)
        status, said = browser.send("/code", code="wrong-wrong-wrong")
        assert status == 403, (status, said)
        status, said = browser.send("/code", code=code["code"])
        assert status == 303, (status, said)
        wait_for("Ann to read", lambda: house.reads(client), timeout_s=3)
        assert not house.reads(house.neighbour), "a neighbour reads what Ann may"
        assert "ann" in browser.page() and f'href="{wiki}"' in browser.page(), browser.page()
        # A gateway that restarts forgets, and is told again.
        house.story.stop(gateway)
        page.wait(timeout=20)
        assert not altnet_answers(gateway)
        house.story.start(gateway)
        page = serve(lab, gateway)
        wait_for("Ann to be logged in again", house.logins, timeout_s=60)
        wait_for("Ann to read again", lambda: house.reads(client), timeout_s=60)
        gateway.run("altnet-login", "code", "revoke", code["id"], "--config", "login.toml")
        out = left(house, client)
        print(f"a code taken back: out after {out:.1f} s")

        status, said = browser.send("/ldap/1", name="carl", password="open says me")
        assert status == 403, (status, said)
        status, said = browser.send("/ldap/1", name="carl", password="open sesame")
        assert status == 303, (status, said)
        wait_for("Carl to read", lambda: house.reads(client), timeout_s=3)
        directory.change("ldapmodify", "dn: cn=readers,dc=house\nchangetype: modify\ndelete: member\nmember: uid=carl,dc=house\n")
        out = left(house, client)
        print(f"removed from a group: out after {out:.1f} s")
        directory.change("ldapmodify", "dn: cn=readers,dc=house\nchangetype: modify\nadd: member\nmember: uid=carl,dc=house\n")
        assert browser.send("/ldap/1", name="carl", password="open sesame")[0] == 303
        wait_for("Carl to read again", lambda: house.reads(client), timeout_s=3)
        # Nobody is let in while the directory is down, and who is in stays.
        directory.server.kill()
        directory.server.wait()
        neighbour = Browser(house.neighbour)
        status, said = neighbour.send("/ldap/1", name="carl", password="open sesame")
        assert status == 503, (status, said)
        assert house.reads(client), "Carl is out although the directory said nothing"
        assert browser.send("/logout")[0] == 303
        wait_for("Carl to be out", lambda: not house.reads(client), timeout_s=3)
        # From another side than the LAN there is nothing to try.
        outside = house.story.internet.b.client
        refused = outside.run("curl", "-6", "--silent", "--max-time", "5", f"http://[{altnet(gateway, 'status')['network']['address']}]/", check=False)
        assert refused.returncode, "the page is open to other homes"


def the_login_page_has_a_certificate_of_the_network() -> None:
    """The login page by https, with a certificate of the network's authority, which a machine takes from the page itself."""
    with Lab() as lab:
        lab.dir.chmod(0o755)
        house = House(lab, POLICY, "tls = true\n")
        gateway, client, owner = house.gateway, house.client, house.story.internet.owner
        add_user(gateway)
        owner.run("altnet-provision", "tls", "create")

        def asked() -> bool:
            owner.run("altnet-provision", "sync")
            listed = json.loads(owner.run("altnet-provision", "tls", "list", "--json").stdout)
            return any(one["name"] == "login" and one["state"] == "waiting" for one in listed["requests"])

        wait_for("the gateway to ask for a certificate", asked)
        (gateway.folder / "login.toml").write_text(
            'state_directory = "/run/altnet-login"\nurl = "https://login.home.alt"\n[tls]\nfrom_network = true\n')
        serve(lab, gateway)
        words = ("curl", "-6", "--silent", "--show-error", "--max-time", "10")
        early = client.run(*words, "--insecure", "https://login.home.alt/", check=False)
        assert early.returncode == 35, f"a page without a certificate answers: {early}"
        owner.run("altnet-provision", "tls", "sign", "--yes")
        wait_for("https", lambda: client.run(*words, "--insecure", "https://login.home.alt/", check=False).returncode == 0, timeout_s=60)

        client.run(*words, "--fail", "--output", "ca.pem", "http://login.home.alt/ca.pem")
        shown = client.run(*words, "http://login.home.alt/ca").stdout
        assert altnet(gateway, "tls", "ca")["fingerprint"] in shown, shown
        assert client.run(*words, "https://login.home.alt/", check=False).returncode == 60, "trusted without the authority"
        moved = client.run(*words, "--write-out", "%{http_code} %{redirect_url}", "http://login.home.alt/").stdout
        assert moved == "303 https://login.home.alt/", moved
        browser = Browser(client, "https", "--cacert", "ca.pem")
        code = json.loads(gateway.run("altnet-login", "code", "create", "--config", "login.toml", "--person", "ann", "--json").stdout)
        status, said = browser.send("/code", code=code["code"])
        assert status == 303, (status, said)
        wait_for("Ann to read", lambda: house.reads(client), timeout_s=3)
        assert "passkey" in browser.page(), "no passkey is offered by https"


def add_user(gateway: Place) -> None:
    """Makes the user that the login page runs as."""
    with open(gateway.path("/etc/passwd"), "a") as passwd:
        passwd.write(f"{GROUP}:x:{GROUP_ID}:{GROUP_ID}::/nonexistent:/usr/sbin/nologin\n")


def serve(lab: Lab, gateway: Place) -> subprocess.Popen:
    """Starts the login page and waits until it listens."""
    started = gateway.start("altnet-login", "serve", "--config", "login.toml", "--user", GROUP, log="login.log")
    wait_for("the login page", lambda: started.poll() is not None or "*:80 " in gateway._tool("ss", "-Hltn"))
    assert started.poll() is None, (lab.dir / "login.log").read_text()
    return started


def altnet_answers(place: Place) -> bool:
    """Whether altnetd answers there."""
    return place.run("altnet", "status", check=False).returncode == 0


def left(house: House, place: Place) -> float:
    """How long a machine goes on reading, at most a minute."""
    since = time.monotonic()
    wait_for("somebody to be out", lambda: not house.reads(place), timeout_s=60, every_s=0.25)
    return time.monotonic() - since


SCENARIOS = [
    people_log_in_on_the_page,
    the_login_page_has_a_certificate_of_the_network,
    a_person_is_judged_on_a_machine_without_software,
    a_machine_is_judged_by_where_it_is_plugged_in,
]
