"""The product's main job, shown: a laptop without our software opens a page in another house.

Called by `ci/demo`, which installs what it needs.
"""

import argparse
import json
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab import altnet, captures, clients, network  # noqa: E402
from lab.places import Lab, LabError, Place, kept_labs, take_down, wait_for  # noqa: E402

OTHER_PORT = 8081
# How long the homes get to find a direct way, in seconds.
DIRECT_S = 20

PAGE = """<!doctype html>
<title>Our wiki</title>
<h1>The wiki of house B</h1>
<p>Read over a private network. {canary}</p>
"""


def main() -> int:
    words = arguments()
    if words.down:
        for folder in kept_labs():
            take_down(folder)
            say(f"{folder} is down")
        return 0
    try:
        with Lab(keep=words.keep) as lab:
            try:
                facts = show(lab, *words.nat)
            finally:
                if words.keep:
                    tell_how_to_enter(lab)
    except LabError as fault:
        say(f"ci/demo: {fault}")
        return 1
    if words.json:
        print(json.dumps(facts, indent=2))
    else:
        table(facts)
    good = facts["page_ok"] and facts["canary_seen_lan"] and not facts["plaintext_seen"]
    return 0 if good and facts["app_ok"] and facts["denied_ok"] and facts["revoked_gap_ms"] is not None else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/demo",
        description="Builds altnet, makes a lab of two homes and the internet between them, provisions it by the README's "
        "own commands, and opens a page of home B on a computer of home A that runs nothing of ours.",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON instead of a table")
    parser.add_argument("--keep", action="store_true", help="leave the lab up and say how to enter it")
    parser.add_argument("--down", action="store_true", help="take down the labs that --keep left up, and nothing else")
    parser.add_argument("--nat", metavar="A,B", type=kinds, default="portcone,symmetric",
                        help=f"the NATs before home A and home B, of {', '.join(network.KINDS)} (default: portcone,symmetric)")
    return parser.parse_args()


def kinds(text: str) -> tuple[str, str]:
    """Reads `A,B`."""
    first, _, second = text.partition(",")
    for kind in (first, second):
        if kind not in network.KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(network.KINDS)}")
    return first, second


def show(lab: Lab, kind_a: str, kind_b: str) -> dict:
    """Tells the whole story and returns what was seen."""
    altnet.build_binaries()
    began = time.monotonic()
    canary = captures.canary()
    say(f"home A behind {kind_a}, home B behind {kind_b}, a relay on the internet")
    story = altnet.Story(lab, kind_a, kind_b, PAGE.format(canary=canary))
    client_a, client_b = story.internet.a.client, story.internet.b.client
    witness = clients.Witness(client_a)
    on_the_internet = captures.Capture(story.internet.bridge, "br0")
    in_home_b = captures.Capture(client_b, "eth0")

    story.tell(before=lambda step: say(f"\n[{step.place}]\n{indent(step.text)}"))
    address = clients.address(client_a)
    resolver = clients.resolver(client_a)
    say(f"\n[client-a] took {address} and resolver {resolver} from router advertisements; it opens {story.url()}")
    page = story.fetch()
    say(f"\n{indent(page)}")
    rtt_ms = ping(client_a, story.url())
    path = goes_direct(story)
    app = opened(story, address, canary)
    denied = refused(story, address)
    gap_ms = revoked_gap(story)

    on_the_internet.stop()
    in_home_b.stop()
    sealed = on_the_internet.sealed()
    return {
        "page_ok": canary in page,
        "url": story.url(),
        **path,
        "nat": [kind_a, kind_b],
        "rtt_ms": rtt_ms,
        **app,
        **denied,
        "revoked_gap_ms": gap_ms,
        "canary_seen_lan": in_home_b.contains(canary),
        "plaintext_seen": on_the_internet.contains(canary),
        "sealed_packets": sealed.total(),
        "sealed_direct": sealed["direct"],
        "sealed_relayed": sealed["relayed"],
        "client_address": address,
        "client_resolver": resolver,
        "client_processes": witness.stop(),
        "seconds": round(time.monotonic() - began, 1),
    }


def goes_direct(story: altnet.Story) -> dict:
    """The way between the homes, and how long after the page it became direct while home A went on sending."""
    client, gateway = story.internet.a.client, story.internet.a.gateway
    began, first = time.monotonic(), altnet.path_between_homes(story)
    while (path := altnet.path_between_homes(story)) != "direct" and time.monotonic() - began < DIRECT_S:
        client.run("ping", "-6", "-n", "-c", "1", "-W", "1", re.match(r"http://([^/:]+)", story.url())[1], check=False)
    peer = next((peer for peer in altnet.altnet(gateway, "peers")["peers"] if peer["name"] == "house-b"), {})
    after_ms = round((time.monotonic() - began) * 1000) if path == "direct" else None
    how = f"{after_ms} ms after the page the two homes go direct" if path == "direct" else "the two homes stay on the relay"
    say(f"\n[gateway-a] first by {first}; {how}: {peer.get('why_text')} ({peer.get('endpoint')})")
    return {"path": path, "path_first": first, "direct_after_ms": after_ms, "path_why": peer.get("why")}


def opened(story: altnet.Story, address: str, canary: str) -> dict:
    """The app of home B, opened by client A by its name, which tells the app who asks whatever client A claims."""
    client, gateway = story.internet.a.client, story.internet.a.gateway
    url = story.url().replace("wiki", "notes")
    lie = ("-H", "Altnet-Caller-Person: owner", "-H", "altnet_caller_member: house-b")
    say(f"\n[client-a] opens {url}, and claims to be its owner")
    words = ("curl", "-6", "--silent", "--fail", "--max-time", "10", *lie, url)
    answer = json.loads(wait_for("the app to answer", lambda: client.run(*words, check=False).stdout or None, timeout_s=30))
    told = {name: value for name, value in answer["headers"] if "caller" in name}
    say(indent(json.dumps(told, indent=2)))
    own = altnet.altnet(story.internet.b.gateway, "app", "list")["apps"][0]
    host = altnet.altnet(gateway, "policy", "check", address, "notes", "80")
    honest = told.get("altnet-caller-address") == address and told.get("altnet-caller-member") == "house-a" and "owner" not in told.values()
    return {
        "app_ok": canary in answer["text"] and honest and host["target"] == own["address"],
        "app_url": url,
        "app_rule": host["rule"],
        "app_caller": told,
    }


def refused(story: altnet.Story, address: str) -> dict:
    """What client A must not reach: another port of the wiki's machine, and the other home's router."""
    client_a, client_b = story.internet.a.client, story.internet.b.client
    client_b.start(altnet.PYTHON, "-m", "http.server", "--bind", "::", str(OTHER_PORT), log="client-b-other.log")
    wait_for("another page of home B's computer", lambda: connects(client_b, f"http://[::1]:{OTHER_PORT}/"))
    router = f"http://[{clients.resolver(client_b)}]:53/"
    if not connects(client_b, router):
        raise LabError("home B's router does not answer its own LAN")
    host = re.match(r"http://([^/:]+)", story.url())[1]
    others = [f"http://{host}:{OTHER_PORT}/", router]
    say(f"\n[client-a] is refused {' and '.join(others)}")
    verdict = altnet.altnet(story.internet.a.gateway, "policy", "check", address, host, str(OTHER_PORT))
    reached = [url for url in others if connects(client_a, url)]
    return {"denied_ok": not reached and not verdict["allowed"], "denied_rule": verdict["rule"], "denied": others}


def connects(place: Place, url: str) -> bool:
    """Whether a TCP connection is taken at all, whatever is said over it then."""
    words = ("curl", "-6", "--silent", "--output", "/dev/null", "--max-time", "3", "--write-out", "%{time_connect}", url)
    return float(place.run(*words, check=False).stdout) > 0


def revoked_gap(story: altnet.Story) -> float | None:
    """Revokes home A's gateway while echoes cross; how long after that was typed the last one was answered, in milliseconds."""
    host = re.match(r"http://([^/:]+)", story.url())[1]
    log = story.lab.dir / "client-a-echoes.log"
    story.internet.a.client.start("ping", "-6", "-n", "-D", "-i", "0.02", host, log=log.name)

    def answered() -> list[float]:
        return [float(at) for at in re.findall(r"^\[([\d.]+)\] \d+ bytes from", log.read_text(), re.MULTILINE)]

    wait_for("echoes between the homes", lambda: len(answered()) > 20)
    command = ["altnet-provision", "revoke", "house-a", "--yes"]
    say(f"\n[owner]\n{indent(' '.join(command))}")
    typed = time.time()
    story.internet.owner.run(*command)
    try:
        wait_for("the echoes to end", lambda: time.time() - answered()[-1] > 2, timeout_s=20)
    except LabError:
        return None
    return round((answered()[-1] - typed) * 1000, 1)


def ping(client: Place, url: str) -> float | None:
    """The median round trip of ten echoes between the two homes' computers, in milliseconds."""
    host = re.match(r"http://([^/:]+)", url)[1]
    said = client.run("ping", "-6", "-n", "-c", "10", "-i", "0.1", "-W", "2", host, check=False).stdout
    times = sorted(float(found) for found in re.findall(r"time=([\d.]+) ms", said))
    return times[len(times) // 2] if times else None


def table(facts: dict) -> None:
    """Prints the facts for a person."""
    width = max(map(len, facts))
    print()
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else value
        print(f"{name:{width}}  {shown}")


def tell_how_to_enter(lab: Lab) -> None:
    """Says how to look around, and how to end it."""
    say(f"\nThe lab stays up; its files are in {lab.dir}. To enter:")
    for place in lab.places.values():
        say(f"  {place.name:12} nsenter -t {place.pid} -n -m -- env HOME=/run/home PATH={lab.environment['PATH'].split(':')[0]}:$PATH bash")
    say("To take it down: ci/demo --down")


def indent(text: str) -> str:
    return "".join(f"    {line}" for line in text.strip().splitlines(True))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
