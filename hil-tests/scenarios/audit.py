"""Audit logs of real gateways, and what their members hold of them."""

import json

from lab.altnet import Story, altnet
from lab.places import Lab, Place, wait_for

LOG = "/var/lib/altnet/audit"
# A node shows its log a minute after it starts, and once an hour after that.
SHOWN_S = 120


def a_rewritten_log_is_refused_and_reported() -> None:
    """Members countersign a gateway's audit log; a changed entry is found, and a log written anew is refused and told of."""
    with Lab() as lab:
        story = Story(lab)
        story.tell()
        story.fetch()
        gateway, relay = story.internet.a.gateway, story.internet.relay
        kinds = [entry["kind"] for entry in entries(gateway)]
        assert {"started", "joined", "act", "login"} <= set(kinds), f"the log of house A lacks something: {kinds}"
        wait_for("a member to countersign the log of house A", lambda: covers(gateway), SHOWN_S, every_s=1)
        print(f"house A's log is countersigned: {covers(gateway)}")
        held = {head["name"]: head for head in altnet(relay, "audit", "heads")["heads"]}
        assert "house-a" in held, f"the relay vouched for {list(held)} alone"

        story.stop(gateway)
        verified = gateway.run("altnet", "audit", "verify", "--dir", LOG, check=False)
        assert verified.returncode == 0, verified.stderr
        name = next(gateway.path(LOG).iterdir()).name
        gateway.run("cp", f"{LOG}/{name}", "/run/kept")
        log = bytearray(gateway.path(f"{LOG}/{name}").read_bytes())
        log[90] ^= 1  # a letter becomes its neighbour, whatever it was
        gateway.path(f"{LOG}/{name}").write_bytes(log)
        verified = gateway.run("altnet", "audit", "verify", "--dir", LOG, check=False)
        print(verified.stderr.strip())
        assert verified.returncode == 1 and "was changed" in verified.stderr, "a changed entry was not found"
        head = f"{held['house-a']['sequence']}:{held['house-a']['hash']}"
        gateway.run("bash", "-euc", f"cp /run/kept {LOG}/{name}")
        gateway.run("altnet", "audit", "verify", "--dir", LOG, "--head", head)

        # All of it goes, and another begins in its place: that fits itself, and not what the relay holds.
        gateway.run("rm", f"{LOG}/{name}")
        story.start(gateway)
        told = wait_for("the relay to report house A", lambda: of_kind(relay, "rewritten"), SHOWN_S, every_s=1)
        assert told[0]["subject"] == "house-a", told
        wait_for("house A to know", lambda: of_kind(gateway, "contradicted"), SHOWN_S, every_s=1)
        verified = gateway.run("altnet", "audit", "verify", check=False)
        print(verified.stderr.strip())
        assert verified.returncode == 1 and "another past" in verified.stderr, "house A is content with its new log"


def entries(place: Place) -> list[dict]:
    """The newest entries of a place's audit log."""
    lines = place.run("altnet", "audit", "export").stdout.splitlines()
    return [json.loads(line) for line in lines]


def of_kind(place: Place, kind: str) -> list[dict]:
    """Those of one kind."""
    return [entry for entry in entries(place) if entry["kind"] == kind]


def covers(place: Place) -> list[str]:
    """Members that countersigned a place's audit log."""
    return [cover["name"] for cover in altnet(place, "audit", "verify")["covers"]]


SCENARIOS = [a_rewritten_log_is_refused_and_reported]
