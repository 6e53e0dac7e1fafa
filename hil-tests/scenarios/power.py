"""Power cuts: kill -9 at random instants, from a seed that is printed."""

import math
import os
import random
import signal
import time

from lab.altnet import Story, altnet
from lab.places import Lab, Place, wait_for
from scenarios.refusals import invite

SEED = int(os.environ.get("ALTNET_SEED", "20"))
# Of how long the command takes on this machine: most cuts fall within it, some into what follows.
UNTIL = 1.5


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
    cuts = Cuts(rounds)
    with Lab() as lab:
        story = Story(lab)
        story.tell(without={"gateway-b"})
        gateway = story.internet.b.gateway
        story.daemons[gateway.name] = story.daemons[story.internet.a.gateway.name]
        story.start(gateway)
        cuts.time(gateway, ["altnet", "join", invite(story.internet.owner, "house")])
        story.stop(gateway)
        for number in range(rounds):
            gateway.run("rm", "-rf", "/var/lib/altnet")
            link = invite(story.internet.owner, f"house-{number}")
            story.start(gateway)
            cuts.cut(story, gateway, ["altnet", "join", link])
            story.start(gateway)
            found = altnet(gateway, "status")
            if found["state"] == "outside":
                cuts.time(gateway, ["altnet", "join", link])
            else:
                gateway.run("altnet", "join", link, check=False)
            member = wait_for("the gateway to be a member", lambda: membership(gateway))
            print(f"{cuts.last}: {found['state']} after the cut, then member {member}")
            if found["state"] == "member":
                assert member == found["network"]["member"], "the member became another"
            story.stop(gateway)
    cuts.close()


def rotating(rounds: int) -> None:
    cuts = Cuts(rounds)
    with Lab() as lab:
        story = Story(lab)
        story.tell()
        story.fetch()
        gateway = story.internet.b.gateway
        for _ in range(rounds):
            cuts.time(gateway, ["altnet", "rotate"])
            before = altnet(gateway, "status")["network"]
            cuts.cut(story, gateway, ["altnet", "rotate"])
            story.start(gateway)
            after = altnet(gateway, "status")["network"]
            print(f"{cuts.last}: epoch {before['tunnel_epoch']} became {after['tunnel_epoch']}")
            assert after["member"] == before["member"], "the member became another"
            assert after["tunnel_epoch"] - before["tunnel_epoch"] in (0, 1), "an epoch was lost or skipped"
        story.fetch()
    cuts.close()


class Cuts:
    """Power cuts at random instants, one in each equal part of the time they are spread over."""

    def __init__(self, rounds: int):
        self._chance = random.Random(SEED)
        self._parts = list(range(rounds))
        self._chance.shuffle(self._parts)
        self._rounds, self._unanswered, self._took_s = rounds, 0, math.inf
        self.last = ""  # where the last one fell, for a person

    def time(self, place: Place, command: list[str]) -> None:
        """Lets a command run to its end; the quickest yet says how long it takes, whatever else this machine does."""
        began = time.monotonic()
        place.run(*command)
        self._took_s = min(self._took_s, time.monotonic() - began)

    def cut(self, story: Story, place: Place, command: list[str]) -> None:
        """Begins a command and takes the daemon's power away a moment later."""
        after_s = UNTIL * self._took_s * (self._parts.pop() + self._chance.random()) / self._rounds
        [daemon] = story.running(place)  # found before: looking takes as long as a rotation
        cut_at = time.monotonic() + after_s
        began = place.start(*command, log=f"{place.name}-cut.log")
        time.sleep(max(0, cut_at - time.monotonic()))  # the instant is the point here: there is no event to wait for
        os.kill(daemon, signal.SIGKILL)
        story.stop(place, signal.SIGKILL)
        answered = began.wait() == 0
        self._unanswered += not answered
        self.last = (f"seed {SEED} round {self._rounds - len(self._parts)}, cut after {1000 * after_s:.0f} ms of "
                     f"{1000 * self._took_s:.0f}, {'' if answered else 'un'}answered")

    def close(self) -> None:
        """Says how many cuts fell before the command was answered; raises if none did."""
        print(f"{self._unanswered} of {self._rounds} cuts fell before the answer")
        assert self._unanswered, "every command was answered before its cut: nothing was tried"


def membership(place: Place) -> str | None:
    """The member id, once this node is one."""
    network = altnet(place, "status").get("network")
    return network["member"] if network else None


SCENARIOS = [kill_9_while_joining, kill_9_while_rotating]
LONG = [kill_9_two_hundred_times]
