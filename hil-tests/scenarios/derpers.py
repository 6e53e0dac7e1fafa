"""Homes that only somebody else's DERP server connects: altnet-derp, run by somebody who isn't a member."""

from lab import homes, network
from lab.altnet import Story, altnet, goes_by
from lab.places import Lab, Place, wait_for
from lab.tailcat import serve_derp

DERPER = "203.0.113.7"
PORT = 8443


def build(lab: Lab) -> tuple[Story, Place, list[Place]]:
    """Two homes behind NATs that need a relay, which both may use a DERP server that knows their keys."""
    story = Story(lab, "symmetric", "symmetric")
    derper = homes.server(lab, story.internet.bridge, "derper", DERPER)
    (derper.folder / "keys").touch()
    words = ["--listen", f"{DERPER}:{PORT}", "--self-signed", "derp", "--admit", "keys"]
    pin = serve_derp(derper, *words, log="derper.log")["pin"]
    gateways = [home.gateway for home in story.internet.homes]

    def enter(step) -> None:
        if step.daemon and step.place.startswith("gateway-"):
            config = story.place(step.place).folder / "altnet.toml"
            config.write_text(config.read_text() + f'\n[[derp]]\nserver = "{DERPER}:{PORT}"\npin = "{pin}"\n')

    story.tell(before=enter)
    keys = [wait_for("its key", lambda gateway=gateway: altnet(gateway, "status")["derp_key"]) for gateway in gateways]
    (derper.folder / "keys").write_text("\n".join(keys) + "\n")
    for gateway in (*gateways, story.internet.relay):
        knows = lambda gateway=gateway: sum(record["kind"] == "derp" for record in altnet(gateway, "records")["records"]) == 2
        wait_for(f"{gateway.name} to know both keys", knows, timeout_s=30)
    return story, derper, gateways


def only_a_derp_server_connects() -> None:
    """Two homes that never talked lose their only relay, restart, and meet by a DERP server of somebody else's, by keys in records alone, without UDP."""
    with Lab() as lab:
        story, derper, gateways = build(lab)
        story.stop(story.internet.relay)
        for gateway in gateways:
            story.stop(gateway)
            # Neither the relay nor the other home can be heard by UDP any more.
            network.block_udp(gateway, "wan")
            story.start(gateway)
        for gateway in gateways:
            admitted = lambda gateway=gateway: altnet(gateway, "status")["derpers"][0]["state"] == "up"
            wait_for(f"{gateway.name} to be admitted", admitted, timeout_s=60)
        goes_by(story, "derp", f"DERP server {DERPER}:{PORT}")
        # Who isn't admitted any more is told so, once.
        (derper.folder / "keys").write_text("")
        story.stop(gateways[0])
        story.start(gateways[0])
        failed = lambda: altnet(gateways[0], "status")["derpers"][0]["state"] == "failed"
        wait_for("gateway A to say that it isn't admitted", failed, timeout_s=60)
        print(altnet(gateways[0], "status")["derpers"][0])


SCENARIOS = [only_a_derp_server_connects]
