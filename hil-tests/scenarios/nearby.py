"""A laptop that runs altnetd, behind a gateway that relays for its LAN (ADR 0019)."""

from lab import clients
from lab.altnet import Story, altnet
from lab.places import Lab, Place, wait_for

# At home A's gateway: of what the LAN sends, nothing but DNS and the like of the gateway's own gets anywhere.
NO_UDP_OUT = """
    table inet strict {
        chain out { type filter hook forward priority 0; iifname "lan" meta l4proto udp drop; }
    }
    """


def laptop_uses_its_gateway() -> None:
    """A laptop whose UDP its gateway's firewall keeps in reaches a page in home B through that gateway, and measures its relays."""
    with Lab() as lab:
        story = Story(lab, "portcone", "portcone")
        story.tell(without={"nobody"})
        gateway, laptop = story.internet.a.gateway, story.internet.a.client
        clients.address(laptop)
        join(story, laptop)
        # It has to have heard once who is a member.
        wait_for("the laptop to know its gateway", lambda: home(laptop) == "house-a", timeout_s=60)
        gateway._tool("nft", "-f", "-", stdin=NO_UDP_OUT)
        story.stop(laptop)
        story.start(laptop)
        wait_for("the laptop to be registered with its gateway", lambda: home(laptop) == "house-a", timeout_s=60)
        print(f"the laptop's relays: {relays(laptop)}")
        print(f"the page says {story.fetch().strip()!r}, by {way(laptop)}")
        wait_for("the laptop's own tunnel to carry it", lambda: tunnel_is_up(laptop), timeout_s=30)
        assert "house-a" in way(laptop), "it went another way"
        measured = altnet(laptop, "relay", "bench", "house-a", "--bytes", "100000")["relays"][0]
        print(f"through {measured['relay']}: {measured['rtt_median_us']} us, {measured['rate_bytes_per_s']} bytes/s")
        assert measured["answered"] == measured["pings"] == 10, "small datagrams to itself got lost on a cable"


def join(story: Story, laptop: Place) -> None:
    """Has a computer join as a member of its own that is no gateway."""
    invite = story.internet.owner.run("altnet-provision", "invite", "create", "--name", "laptop", "--no-qr").stdout
    story.daemons[laptop.name] = "altnetd"
    story.start(laptop)
    laptop.run("altnet", "join", "-", stdin=invite, timeout_s=120)


def relays(laptop: Place) -> list[str]:
    """The relays that forward for a computer, by name."""
    return [relay["name"] for relay in altnet(laptop, "relay", "list")["relays"] if relay["up"]]


def home(laptop: Place) -> str | None:
    """The one that comes first."""
    return next((relay["name"] for relay in altnet(laptop, "relay", "list")["relays"] if relay["home"]), None)


def peer(laptop: Place) -> dict:
    """What it says of home B's gateway."""
    return next((peer for peer in altnet(laptop, "peers")["peers"] if peer["name"] == "house-b"), {})


def way(laptop: Place) -> str:
    """How it reaches home B, with the relay's name."""
    endpoint = peer(laptop).get("endpoint") or "none"
    for relay in altnet(laptop, "relay", "list")["relays"]:
        endpoint = endpoint.replace(relay["node"], relay["name"])
    return endpoint


def tunnel_is_up(laptop: Place) -> bool:
    """Whether it has a tunnel of its own to home B."""
    return bool(peer(laptop).get("tunnel_up"))


SCENARIOS = [laptop_uses_its_gateway]
