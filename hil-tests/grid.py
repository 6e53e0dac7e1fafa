"""Every pair of lines that two homes may have: whether they meet, how soon, and how.

Called by `ci/grid`, which installs what it needs.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab import nets  # noqa: E402
from lab.altnet import BINARIES, ROOT, build_binaries, path  # noqa: E402
from lab.members import PASSPHRASE, PINGS, at_once, found, say, status  # noqa: E402
from lab.places import Lab, LabError  # noqa: E402

TABLE = ROOT / "firmware/altnet-sim/src/grid.txt"
# Seconds: within which the first packet comes, and a pair is direct that must or is likely to be.
FIRST_PACKET_S = {"udp-blocked": 2.0}
DIRECT_S = {"must": 5.0, "likely": 10.0, "relay": 4.0}
# With fewer seeds chance decides of one pair: those that are likely are judged together.
ENOUGH_SEEDS = 20
# Pairs that meet at a time: what is measured is the network, not the machine.
AT_ONCE = 4


def main() -> int:
    words = arguments()
    kinds = words.kinds or list(nets.KINDS)
    expected = table()
    pairs = [(a, b) for place, a in enumerate(kinds) for b in kinds[place:]]
    met = []
    try:
        for seed in range(words.seed, words.seed + words.seeds):
            met += grid(kinds, pairs, expected, seed)
    except LabError as fault:
        say(f"ci/grid: {fault}")
        return 1
    faults = [fault for pair in pairs if (fault := judge(pair, [one for one in met if (one["a"], one["b"]) == pair], words.seeds))]
    likely = [one for one in met if one["expect"] == "likely"]
    late = [f"{one['a']} and {one['b']}" for one in likely if not one["direct"]]
    if words.seeds < ENOUGH_SEEDS and len(late) * 10 > len(likely):
        faults.append(f"{len(late)} of {len(likely)} that are likely to be direct were not: {', '.join(late)}")
    if words.json:
        print(json.dumps({"pairs": met}, indent=2))
    for fault in faults:
        say(fault)
    direct = sum(one["direct"] for one in met)
    say(f"{len(met)} pairs met, {direct} of them directly; {len(faults)} not as the table says")
    return 1 if faults else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/grid",
        description="Puts two homes on every kind of line, joins them to one network with two relays, and has each pair meet for "
        "the first time: from the first packet on, without a session, homes connected to their relays. What is expected of "
        f"each pair stands in {TABLE.relative_to(ROOT)}. Needs root. Exits 0 when every pair is as the table says.",
    )
    parser.add_argument("--json", action="store_true", help="print what every pair did as JSON")
    parser.add_argument("--seeds", type=int, default=1, help="how many times, with other random ports each (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="the first of them (default: 1)")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"only these of {', '.join(nets.KINDS)}")
    words = parser.parse_args()
    for kind in words.kinds:
        if kind not in nets.KINDS:
            parser.error(f"there is no kind of line {kind}")
    return words


def table() -> dict[tuple[str, str], str]:
    """What is expected of each pair."""
    rows = [line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return {(row[0], kind): word for row in rows[1:] for kind, word in zip(rows[0], row[1:], strict=True)}


def grid(kinds: list[str], pairs: list[tuple[str, str]], expected: dict, seed: int) -> list[dict]:
    """Lets every pair meet once; returns what each did."""
    build_binaries()
    binary = BINARIES / "examples/internet"
    with Lab() as lab:
        lab.environment = {"PATH": f"{BINARIES}:/usr/sbin:/usr/bin:/sbin:/bin", "ALTNET_PASSPHRASE": PASSPHRASE}
        net = nets.Net(lab, binary, seed)
        relays = [net.server(f"relay-{n}", address) for n, address in enumerate(nets.RELAYS, 1)]
        # The owner's computer tells the directory of the policy.
        owner = net.server("owner", "203.0.113.9")
        homes = {(kind, group): net.home(kind, 10 * place + group, group) for place, kind in enumerate(kinds, 1) for group in (1, 2)}
        net.go()
        try:
            found(net, owner, relays, [home.place for home in homes.values()], PINGS)
            say(f"seed {seed}: {len(homes)} homes are connected to {len(relays)} relays")
            met = []
            for turn in rounds(pairs):
                met += side_by_side([(homes[a, 1], homes[b, 2], expected[a, b]) for a, b in turn])
            return [{**one, "seed": seed} for one in met]
        finally:
            net.end()


def rounds(pairs: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Pairs in turns in which no home is twice."""
    turns: list[list[tuple[str, str]]] = []
    for a, b in pairs:
        for turn in turns:
            if len(turn) < AT_ONCE and all(a != other and b != another for other, another in turn):
                turn.append((a, b))
                break
        else:
            turns.append([(a, b)])
    return turns


def side_by_side(pairs: list[tuple[nets.Home, nets.Home, str]]) -> list[dict]:
    """Lets pairs meet at the same time."""
    met: list[dict] = []
    at_once([lambda pair=pair: met.append(meet(*pair)) for pair in pairs])
    return met


def meet(a: nets.Home, b: nets.Home, expected: str) -> dict:
    """Home A pings home B ten times a second until both ways are direct, or time is up."""
    address = status(b.place)["network"]["address"]
    began = time.monotonic()
    most = DIRECT_S[expected]
    ping = subprocess.Popen([*a.place.enter(), "ping", "-6", "-n", "-i", "0.1", "-w", str(int(most) + 1), address],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=a.place.environment())
    first: list[float] = []

    def listen() -> None:
        for line in ping.stdout:
            if re.search(r"bytes from .* time=", line) and not first:
                first.append(time.monotonic() - began)

    listener = threading.Thread(target=listen)
    listener.start()
    direct = None
    while direct is None and ping.poll() is None and time.monotonic() - began < most:
        if path(a.place, b.name) == "direct" and path(b.place, a.name) == "direct":
            direct = time.monotonic() - began
        time.sleep(0.25)
    ping.terminate()
    ping.wait()
    listener.join()
    first_ms = round(first[0] * 1000) if first else None
    one = {
        "a": a.kind, "b": b.kind, "expect": expected, "connected": bool(first), "direct": direct is not None,
        "first_packet_ms": first_ms, "best_path_ms": round(direct * 1000) if direct is not None else first_ms,
    }
    say(f"{a.kind:21} {b.kind:21} {expected:7} first packet {one['first_packet_ms']} ms, {'direct' if one['direct'] else 'relay'} {one['best_path_ms']} ms")
    return one


def judge(pair: tuple[str, str], met: list[dict], seeds: int) -> str | None:
    """What isn't as the table says of a pair, if anything."""
    first_s = max(FIRST_PACKET_S.get(kind, 1.0) for kind in pair)
    name = " and ".join(pair)
    for one in met:
        if not one["connected"]:
            return f"{name} did not meet"
        if one["first_packet_ms"] > first_s * 1000:
            return f"{name}: the first packet took {one['first_packet_ms']} ms"
    late, expected = sum(not one["direct"] for one in met), met[0]["expect"]
    likely = late * 20 <= len(met) or seeds < ENOUGH_SEEDS
    holds = {"must": late == 0, "likely": likely, "relay": late == len(met)}[expected]
    return None if holds else f"{name}: {expected}, but {late} of {len(met)} were not direct within {DIRECT_S[expected]:g} s"


if __name__ == "__main__":
    sys.exit(main())
