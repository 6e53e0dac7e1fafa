"""Relays that forward to each other: homes that share none, and links that are cut (ADR 0018)."""

from lab import homes
from lab.altnet import SHELL, Story, altnet
from lab.places import Lab, Place, wait_for

# Relays beside the README's, by name.
FURTHER = {"relay-2": "203.0.113.11", "relay-3": "203.0.113.12"}
WALL = """
table inet cut_{hook} {{
    set away {{ type ipv4_addr; elements = {{ {addresses} }}; }}
    chain wall {{
        type filter hook {hook} priority -10;
        ip daddr @away drop
        ip saddr @away drop
    }}
}}
"""


def relays_forward_to_each_other() -> None:
    """Two homes of which each reaches another relay only fetch a page, and still do once the link between those relays is cut."""
    with Lab() as lab:
        story = Story(lab, "symmetric", "symmetric")
        story.tell()
        relays = {"relay1": story.internet.relay, **{name: join(story, name, address) for name, address in FURTHER.items()}}
        gateways = [home.gateway for home in story.internet.homes]
        for gateway in gateways:
            wait_for(f"{gateway.name} to be served by all relays", lambda gateway=gateway: sum(
                relay["up"] for relay in altnet(gateway, "relay", "list")["relays"]) == len(relays), timeout_s=60)
        for name, place in relays.items():
            wait_for(f"{name} to be linked with the others", lambda place=place: sum(
                link["up"] for link in altnet(place, "relay", "status")["links"]) == len(relays) - 1, timeout_s=60)
        story.fetch()

        # From now on home A reaches the README's relay alone, home B the second.
        a, b = (home.isp for home in story.internet.homes)
        cut(a, "forward", *FURTHER.values())
        cut(b, "forward", homes.RELAY, FURTHER["relay-3"])
        story.fetch()
        passes = wait_for("gateway A to say which relays lead to house-b", lambda: on_the_way(gateways[0], "passes on to"), timeout_s=300)
        print(f"gateway A: {passes}")
        story.fetch()
        link = between(relays["relay1"], "relay-2")
        assert link["up"] and link["sent"] > 0 and link["came"] > 0, f"nothing went over the link: {link}"

        # And then those two relays don't reach each other any more.
        sent = lambda: [between(relays["relay-3"], name)["sent"] for name in ("relay1", "relay-2")]
        before = sent()
        cut(relays["relay1"], "input", FURTHER["relay-2"])
        cut(relays["relay1"], "output", FURTHER["relay-2"])
        story.fetch()
        third = [now - was for now, was in zip(sent(), before)]
        assert all(third), f"nothing went by the third relay: {third}"
        print(f"by the third relay: {third} datagrams")


def join(story: Story, name: str, address: str) -> Place:
    """Adds a relay to the network, as the README does the first."""
    owner, place = story.internet.owner, homes.server(story.lab, story.internet.bridge, name, address)
    bundle = owner.folder / f"{name}.bundle"
    owner.run(*SHELL, f"altnet-provision bundle --name {name} --role relay --endpoint {address}:51820 -o {bundle}")
    story.daemons[name] = "altnetd"
    story.start(place)
    place.run("altnet", "join", "--bundle", str(bundle))
    return place


def cut(place: Place, hook: str, *addresses: str) -> None:
    """Lets nothing pass at a place to and from addresses."""
    place._tool("nft", "-f", "-", stdin=WALL.format(hook=hook, addresses=", ".join(addresses)))


def between(place: Place, other: str) -> dict:
    """A relay's link to another."""
    return next(link for link in altnet(place, "relay", "status")["links"] if link["name"] == other)


def on_the_way(gateway: Place, words: str) -> str | None:
    """What a gateway says of the relays on the way to house-b, if it says so."""
    steps = altnet(gateway, "why", "house-b")["steps"]
    said = next((step["answer"] for step in steps if step["question"] == "relays"), "")
    return said if words in said else None


SCENARIOS = [relays_forward_to_each_other]
