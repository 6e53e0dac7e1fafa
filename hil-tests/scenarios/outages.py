"""Bad days of the network: nobody to ask, a member cut off, clocks that are wrong."""

from lab.altnet import TARGET, Story, altnet, path_between_homes
from lab.places import CannotRunHere, Lab, wait_for

FAKETIME = TARGET / "ci-tools/faketime/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def relay_gone_both_restart() -> None:
    """Relay and directory gone, both gateways restarted: they meet again from stored state."""
    with Lab() as lab:
        story = Story(lab, "portcone", "public")
        story.tell()
        story.fetch()
        wait_for("the path to be direct", lambda: path_between_homes(story) == "direct")
        for home in story.internet.homes:
            kept = lambda home=home: any(home.gateway.path("/var/lib/altnet").rglob("path-*"))
            wait_for(f"{home.gateway.name} to keep where the other is", kept)
        story.stop(story.internet.relay)
        for home in story.internet.homes:
            story.stop(home.gateway)
        for home in story.internet.homes:
            story.start(home.gateway)
        assert story.fetch(), "no page"


def relay_gone_says_what_it_waits_for() -> None:
    """The same between NATs that need a relay: each gateway says plainly what it waits for."""
    with Lab() as lab:
        story = Story(lab, "symmetric", "symmetric")
        story.tell()
        story.fetch()
        story.stop(story.internet.relay)
        for home in story.internet.homes:
            story.stop(home.gateway)
            story.start(home.gateway)
        for home in story.internet.homes:
            said = wait_for(f"{home.gateway.name} to say what it waits for", lambda: altnet(home.gateway, "status")["waits_for"], timeout_s=60)
            print(f"{home.gateway.name}: {' '.join(said)}")
        story.start(story.internet.relay)
        assert story.fetch(timeout_s=120), "no page once the relay was back"


def revoked_member_is_cut() -> None:
    """A revoked gateway loses its peers while everything runs, and nothing reaches it any more."""
    with Lab() as lab:
        story = Story(lab)
        story.tell()
        story.fetch()
        story.internet.owner.run("altnet-provision", "revoke", "house-b", "--yes")

        def is_cut() -> bool:
            client = story.internet.a.client
            return client.run("curl", "--silent", "--fail", "--max-time", "2", story.url(), check=False).returncode != 0

        wait_for("the page to be out of reach", is_cut, timeout_s=60)
        wait_for("gateway A to forget house-b", lambda: path_between_homes(story) == "none")


def clock_at_1970() -> None:
    """Both gateways boot in 1970: they join, shake hands and resolve all the same."""
    with Lab() as lab:
        story = Story(lab)
        for home in story.internet.homes:
            story.environments[home.gateway.name] = clock("@1970-01-01 00:00:10")
        story.tell()
        assert story.fetch(), "no page"


def clock_far_ahead_poisons_nothing() -> None:
    """A gateway that once believed in 2099 works again as soon as its clock is right."""
    with Lab() as lab:
        story = Story(lab)
        story.tell()
        story.fetch()
        gateway = story.internet.b.gateway
        story.stop(gateway)
        story.environments[gateway.name] = clock("@2099-01-01 00:00:00")
        story.start(gateway)
        print(f"in 2099: {altnet(gateway, 'status')['state']}")
        story.stop(gateway)
        del story.environments[gateway.name]
        story.start(gateway)
        assert story.fetch(), "no page"


def clock(moment: str) -> dict[str, str]:
    """What makes a process see another calendar; time since boot runs on as it is."""
    if not FAKETIME.exists():
        raise CannotRunHere("libfaketime is not there: run ci/install lab")
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": moment, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


SCENARIOS = [relay_gone_both_restart, relay_gone_says_what_it_waits_for, revoked_member_is_cut, clock_at_1970, clock_far_ahead_poisons_nothing]
