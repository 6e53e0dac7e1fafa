"""Power cuts: kill -9 at random instants, from a seed that is printed."""

import os
import random
import signal
import time

from lab.altnet import Story, altnet
from lab.places import Lab, Place, wait_for
from scenarios.refusals import invite

SEED = int(os.environ.get("ALTNET_SEED", "20"))
# Longer than a join or a rotation takes, so that cuts fall before, within and after.
WITHIN_S = 0.4


def kill_9_while_joining() -> None:
    """Ten power cuts while a gateway joins: its state loads, and it joins again as the same member."""
    joining(10)


def kill_9_while_rotating() -> None:
    """Ten power cuts while tunnel keys rotate: the old or the new epoch stands, and the page comes."""
    rotating(10)


def kill_9_two_hundred_times() -> None:
    """A hundred power cuts while joining and a hundred while rotating."""
    joining(100)
    rotating(100)


def joining(rounds: int) -> None:
    chance = random.Random(SEED)
    with Lab() as lab:
        story = Story(lab)
        story.tell(without={"gateway-b"})
        gateway = story.internet.b.gateway
        story.daemons[gateway.name] = story.daemons[story.internet.a.gateway.name]
        for number in range(rounds):
            gateway.run("rm", "-rf", "/var/lib/altnet")
            link = invite(story.internet.owner, f"house-{number}")
            story.start(gateway)
            cut(story, gateway, ["altnet", "join", link], chance.uniform(0, WITHIN_S))
            story.start(gateway)
            found = altnet(gateway, "status")
            gateway.run("altnet", "join", link, check=found["state"] == "outside", timeout_s=60)
            member = wait_for("the gateway to be a member", lambda: membership(gateway))
            print(f"seed {SEED} round {number}: {found['state']} after the cut, then member {member}")
            if found["state"] == "member":
                assert member == found["network"]["member"], "the member became another"
            story.stop(gateway)


def rotating(rounds: int) -> None:
    chance = random.Random(SEED)
    with Lab() as lab:
        story = Story(lab)
        story.tell()
        story.fetch()
        gateway = story.internet.b.gateway
        for number in range(rounds):
            before = altnet(gateway, "status")["network"]
            cut(story, gateway, ["altnet", "rotate"], chance.uniform(0, WITHIN_S))
            story.start(gateway)
            after = altnet(gateway, "status")["network"]
            print(f"seed {SEED} round {number}: epoch {before['tunnel_epoch']} became {after['tunnel_epoch']}")
            assert after["member"] == before["member"], "the member became another"
            assert after["tunnel_epoch"] - before["tunnel_epoch"] in (0, 1), "an epoch was lost or skipped"
        story.fetch()


def cut(story: Story, place: Place, command: list[str], after_s: float) -> None:
    """Begins a command and takes the daemon's power away a moment later."""
    began = place.start(*command, log=f"{place.name}-cut.log")
    time.sleep(after_s)  # the instant is the point here: there is no event to wait for
    story.stop(place, signal.SIGKILL)
    began.wait()


def membership(place: Place) -> str | None:
    """The member id, once this node is one."""
    network = altnet(place, "status").get("network")
    return network["member"] if network else None


SCENARIOS = [kill_9_while_joining, kill_9_while_rotating]
LONG = [kill_9_two_hundred_times]
