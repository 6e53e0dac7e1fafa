"""What idle gateways cost their lines: called by `ci/bench idle` with the simulated day's program.

After that day, real daemons in real time: two gateways behind NATs of different patience, five peers, two relays.
Ten quiet minutes are measured, then a call from a peer and what comes after it; a day is made of these.
"""

import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab import nets  # noqa: E402
from lab.altnet import BINARIES, build_binaries  # noqa: E402
from lab.members import PASSPHRASE, PINGS, at_once, found, say, status  # noqa: E402
from lab.places import Lab, Place  # noqa: E402

PEERS = 5
TIMEOUTS_S = (120, 30)
AIM_BYTES, AIM_MS = 500_000, 1000
# Until what a call leaves behind is over, the pauses between heartbeats are learnt, and the one that is too long for
# the NAT was tried, which happens once a day and is not to be counted 144 times.
SETTLE_S, QUIET_S, CALL_S = 960, 600, 240
DAY_S, CALLS_A_DAY = 86_400, 24


def main() -> int:
    bench, *rest = sys.argv[1:]
    done = subprocess.run([bench, *rest], stdout=subprocess.PIPE if "--json" in rest else None, text=True)
    facts = json.loads(done.stdout) if done.stdout else {}
    measured = measure()
    facts |= measured
    if "--json" in rest:
        print(json.dumps(facts))
    else:
        for name, value in measured.items():
            print(f"{name}: {value}")
    holds = measured["bytes_per_day_measured"] <= AIM_BYTES and measured["answered_ms_measured"] <= AIM_MS
    return 0 if holds and done.returncode == 0 else 1


def measure() -> dict:
    """Both gateways at once."""
    build_binaries()
    with Lab() as lab:
        lab.environment = {"PATH": f"{BINARIES}:/usr/sbin:/usr/bin:/sbin:/bin", "ALTNET_PASSPHRASE": PASSPHRASE}
        net = nets.Net(lab, BINARIES / "examples/internet")
        relays = [net.server(f"relay-{n}", address) for n, address in enumerate(nets.RELAYS, 1)]
        owner = net.server("owner", "203.0.113.9")
        homes = [net.bare(f"home-{timeout}s") for timeout in TIMEOUTS_S]
        peers = [net.bare(f"peer-{n}") for n in range(1, PEERS + 1)]
        net.go()
        for n, home in enumerate([*homes, *peers], 1):
            timeout = home.name.removeprefix("home-") if home in homes else "120s"
            net.connect(home, (f"100.64.{n}.2", f"nat-{n}", f"port-restricted-{timeout}", f"198.51.100.{n}"))
        try:
            found(net, owner, relays, [home.place for home in [*homes, *peers]], PINGS)
            places = [home.place for home in homes]
            for peer in peers:
                at_once([lambda place=place: call(peer.place, place) for place in places])
            say(f"{len(homes)} gateways have {PEERS} peers; quiet for {SETTLE_S} s, and {QUIET_S} s that count")
            time.sleep(SETTLE_S)
            before = [crossed(place) for place in places]
            time.sleep(QUIET_S)
            quiet = [crossed(place) - was for place, was in zip(places, before)]
            answered: list[int] = []
            before = [crossed(place) for place in places]
            at_once([lambda place=place, peer=peer: answered.append(call(peer.place, place)) for place, peer in zip(places, peers)])
            time.sleep(CALL_S)
            called = [crossed(place) - was for place, was in zip(places, before)]
        finally:
            net.end()
    days = [day(*both) for both in zip(quiet, called)]
    return {"bytes_per_day_measured": days[0], "bytes_per_day_measured_nat30": days[1], "answered_ms_measured": max(answered),
            "bytes_in_ten_quiet_minutes": quiet[0], "bytes_of_a_call": called[0]}


def day(quiet: int, called: int) -> int:
    """A day's bytes, of those of ten quiet minutes and of a call with what comes after it."""
    calls_s = CALLS_A_DAY * CALL_S
    return round(quiet / QUIET_S * (DAY_S - calls_s) + called * CALLS_A_DAY)


def call(peer: Place, home: Place) -> int:
    """Pings a home until it answers; returns after how many ms."""
    address = status(home)["network"]["address"]
    began = time.monotonic()
    ping = subprocess.Popen([*peer.enter(), "ping", "-6", "-n", "-i", "1", "-w", "60", "-c", "1", address],
                            stdout=subprocess.PIPE, text=True, env=peer.environment())
    answered = next((time.monotonic() for line in ping.stdout if re.search(r"bytes from .* time=", line)), None)
    ping.wait()
    if answered is None:
        raise SystemExit(f"{home.name} did not answer {peer.name}")
    return round((answered - began) * 1000)


def crossed(place: Place) -> int:
    """IP bytes that crossed a place's line so far, both ways."""
    counts = json.loads(place.ip("-j", "-s", "link", "show", "wan"))[0]["stats64"]
    return counts["rx"]["bytes"] + counts["tx"]["bytes"]


if __name__ == "__main__":
    sys.exit(main())
