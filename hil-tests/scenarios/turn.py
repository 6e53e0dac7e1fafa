"""Homes that only somebody else's TURN server connects: coturn's."""

from lab import homes, network
from lab.altnet import Story, altnet, goes_by, path_between_homes
from lab.places import Lab, Place, wait_for

from .traversal import TURN_PORT, TURN_SERVER, TurnServer, prepare

USERS = {"gateway-a": ("anna", "sesame"), "gateway-b": ("ben", "open")}


def build(lab: Lab, transport: str) -> tuple[Story, list[Place]]:
    """Two homes behind NATs that need a relay, each with a user at coturn, that talk by the relay until both have an address there."""
    prepare()
    story = Story(lab, "symmetric", "symmetric")
    TurnServer(homes.server(lab, story.internet.bridge, "turn", TURN_SERVER))
    gateways = [home.gateway for home in story.internet.homes]

    def enter(step) -> None:
        user = USERS.get(step.place)
        if user is None or not step.daemon:
            return
        config = story.place(step.place).folder / "altnet.toml"
        config.write_text(config.read_text() + f"""
[[turn]]
server = "{TURN_SERVER}:{TURN_PORT}"
transport = "{transport}"
username = "{user[0]}"
password = "{user[1]}"
""")
        config.chmod(0o600)

    story.tell(before=enter)
    assert story.fetch(), "no page by the relay"
    for gateway in gateways:
        # Talked to now and then, so that it stays needed.
        served = lambda gateway=gateway: story.fetch(15) and state(gateway)["reaches"] > 0
        wait_for(f"{gateway.name} to know a way by coturn", served, timeout_s=60, every_s=1)
        print(f"{gateway.name}: {state(gateway)}")
    assert path_between_homes(story) == "relay", "a TURN server was preferred to a relay that works"
    return story, gateways


def state(gateway: Place) -> dict:
    """What a gateway says of its TURN server."""
    return altnet(gateway, "status")["turn"][0]


def goes_on(story: Story) -> None:
    """The homes reach each other by coturn alone; pings pass, and tools say so."""
    goes_by(story, "turn", "TURN server", timeout_s=30)
    peer = next(peer for peer in altnet(story.internet.a.gateway, "peers")["peers"] if peer["name"] == "house-b")
    assert (peer["path"], peer["why"]) == ("turn", "turn"), peer


def only_coturn_connects() -> None:
    """Two homes behind symmetric NATs lose their only relay and go on by coturn over UDP; they go back once it is there again."""
    with Lab() as lab:
        story, _ = build(lab, "udp")
        story.stop(story.internet.relay)
        goes_on(story)
        story.start(story.internet.relay)
        wait_for("the path to be by the relay again", lambda: story.fetch(15) and path_between_homes(story) == "relay", timeout_s=120, every_s=1)


def only_coturn_connects_and_no_udp_passes() -> None:
    """Two homes that no UDP leaves any more, and that no relay serves over TLS, go on by coturn over TCP."""
    with Lab() as lab:
        story, gateways = build(lab, "tcp")
        for gateway in gateways:
            network.block_udp(gateway, "wan")
        goes_on(story)


SCENARIOS = [only_coturn_connects, only_coturn_connects_and_no_udp_passes]
