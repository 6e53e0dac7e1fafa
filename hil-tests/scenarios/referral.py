"""Members who bring others in, as far as policy says (ADR 0009)."""

import json

from lab import clients, homes
from lab.altnet import NOTES_PORT, Story, altnet
from lab.places import Lab, Place, wait_for

# House A may bring in one guest, who reaches the wiki's page and nothing else.
POLICY = """
[groups]
guests = []

[[rules]]
name = "guests-read"
from = ["group:guests"]
to = ["host:wiki"]
services = ["tcp/80", "ping"]

[[sponsors]]
who = ["device:house-a"]
most = 1
depth = 1
groups = ["guests"]
"""


def a_member_brings_a_friend_in() -> None:
    """A member's invite lets one friend in, into what policy says; the tree is seen, and goes with its sponsor."""
    with Lab() as lab:
        story = Story(lab)
        story.tell()
        gateway, owner = story.internet.a.gateway, story.internet.owner
        (owner.folder / "referral.toml").write_text(POLICY)
        print(owner.run("altnet-provision", "policy", "publish", "referral.toml", "--yes").stdout.strip())
        for home in story.internet.homes:
            wait_for("the policy to be in force", lambda: altnet(home.gateway, "policy", "show")["rules"] == 1)

        link = altnet(gateway, "invite", "create", "--name", "friend")["link"]
        spare = altnet(gateway, "invite", "create")["link"]
        friend, late = (newcomer(story, name, last) for name, last in (("friend", 60), ("late", 61)))
        print(friend.run("altnet", "join", link, timeout_s=60).stdout.strip())
        wiki = clients.address(story.internet.b.client)
        wait_for("the friend to read the wiki", lambda: reads(friend, f"http://[{wiki}]/"))
        assert not reads(friend, f"http://[{wiki}]:{NOTES_PORT}/"), "a guest reaches what no rule allows"

        # One at a time: told when somebody comes by another invite, and when one is made.
        refused = late.run("altnet", "join", spare, "--name", "late", timeout_s=60, check=False)
        print(refused.stderr.strip())
        assert refused.returncode == 1 and "as many members as the network's policy allows" in refused.stderr
        wait_for("the gateway to hear of the friend", lambda: any(m["name"] == "friend" for m in altnet(gateway, "members")["members"]))
        again = gateway.run("altnet", "invite", "create", check=False)
        print(again.stderr.strip())
        assert again.returncode == 1 and "to have brought in 1 at a time" in again.stderr
        # And those who were brought in bring in nobody.
        theirs = friend.run("altnet", "invite", "create", check=False)
        print(theirs.stderr.strip())
        assert theirs.returncode == 1 and "the policy does not let" in theirs.stderr

        print(gateway.run("altnet", "members").stdout)
        tail = gateway.run("altnet", "audit", "tail", "--json").stdout
        assert "invited" in tail, f"the log does not say that an invite was made: {tail}"
        owner.run("altnet-provision", "sync")
        members = json.loads(owner.run("altnet-provision", "members", "--tree", "--json").stdout)["members"]
        sponsors = {member["name"]: member["sponsor"] for member in members}
        assert sponsors["friend"] == "house-a", sponsors
        asked = owner.run("altnet-provision", "revoke", "house-a", check=False)
        print(asked.stderr.strip())
        assert asked.returncode and "friend" in asked.stderr, "revoking did not ask about whom it brought in"
        owner.run("altnet-provision", "revoke", "house-a", "--with-invited")
        for place in (gateway, friend):
            wait_for(f"{place.name} to be put out", lambda: altnet(place, "status")["state"] == "outside")
        assert not reads(friend, f"http://[{wiki}]/"), "who was put out still reads the wiki"


def newcomer(story: Story, name: str, last: int) -> Place:
    """A computer on the internet with an altnetd that is in no network."""
    place = homes.server(story.lab, story.internet.bridge, name, f"203.0.113.{last}")
    story.daemons[name] = story.daemons["relay"]
    story.start(place)
    return place


def reads(place: Place, url: str) -> bool:
    """Whether a page comes, asked for once."""
    return place.run("curl", "-6", "--silent", "--fail", "--max-time", "5", url, check=False).returncode == 0


SCENARIOS = [a_member_brings_a_friend_in]
