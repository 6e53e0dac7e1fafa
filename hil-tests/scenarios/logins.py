"""Machines without software: who logged in from them decides what they reach (ADR 0008)."""

import json

from lab import clients, network
from lab.altnet import Story, altnet
from lab.places import Lab, Place, wait_for
from scenarios.house import configuration, tell

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

    def __init__(self, lab: Lab):
        self.story = Story(lab, "portcone", "public")
        self.gateway, self.client = self.story.internet.a.gateway, self.story.internet.a.client
        with open(self.gateway.path("/etc/group"), "a") as groups:
            groups.write(f"{GROUP}:x:{GROUP_ID}:\n")
        self.neighbour = lab.place("neighbour-a")
        network.cable(self.gateway, "lan2", self.neighbour, "eth0")
        clients.listen_for_advertisements(self.neighbour)
        tell(self.story, {self.gateway.name: configuration(more=f'[login]\ngroup = "{GROUP}"\n')})
        self.gateway.ip("link", "set", "lan2", "master", "lan")
        self.story.fetch()
        owner = self.story.internet.owner
        (owner.folder / "logins.toml").write_text(POLICY)
        owner.run("altnet-provision", "policy", "publish", "logins.toml", "--yes")
        for home in self.story.internet.homes:
            wait_for("the policy to be in force", lambda: altnet(home.gateway, "policy", "show")["rules"] == 1)

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


SCENARIOS = [a_person_is_judged_on_a_machine_without_software]
