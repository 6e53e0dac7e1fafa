"""What relaying costs: called by `ci/bench relay` with the load generator and coturn's TURN server.

How it is measured stands in ci/bench.md.
"""

import json
import os
import pathlib
import re
import resource
import secrets
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab.altnet import BINARIES  # noqa: E402
from lab.places import Lab, Place, wait_for  # noqa: E402

RATIO_AIM, IDLE_AIM_BYTES = 3, 64_000_000
ROUNDS, SECONDS = 5, 2
BIG, SMALL = 1400, 64  # bytes a datagram: CPU a GB is told by the first, a million packets by the second
IDLE_CLIENTS, TLS_CLIENTS = 10_000, 2_000
RELAY, TURN, DERP = "127.0.0.1:51820", "127.0.0.1:3478", "127.0.0.1:8443"
SERVER_CPU, LOAD_CPU = "1", "0"


class Loader:
    """The generator, once it is ready."""

    def __init__(self, place: Place, *words: str):
        environment = {**place.environment(), "RUST_BACKTRACE": "1"}
        self._process = subprocess.Popen(
            [*place.enter(), "taskset", "-c", LOAD_CPU, *words],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.said = self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load generator ended; what it said is above")
        return json.loads(line)

    def load(self, server: int, size: int, trains: bool) -> dict:
        """One load, and what the server's process took for it."""
        before = cpu_s(server)
        self._process.stdin.write(f"load {size} {SECONDS} {int(trains)}\n")
        self._process.stdin.flush()
        moved = self._read()
        cpu = cpu_s(server) - before
        if not moved["received"]:
            raise SystemExit(f"nothing came through: {moved}")
        return {
            "cpu_s_per_gb": cpu / (moved["bytes"] / 1e9),
            "cpu_s_per_million_packets": cpu / (moved["received"] / 1e6),
            "packets_per_s": moved["received"] / moved["seconds"],
            "mbit_per_s": moved["bytes"] * 8 / 1e6 / moved["seconds"],
            "lost": 1 - moved["received"] / max(moved["sent"], 1),
        }

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def cpu_s(pid: int) -> float:
    """The CPU time of a process, all its threads together."""
    total = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory, counted page by page: /proc/PID/status says it a little wrong."""
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)[1])


def pid_of(place: Place, name: str) -> int:
    """The process of this name at a place."""
    def find() -> int | None:
        lines = place.processes().items()
        return next((pid for pid, line in lines if os.path.basename(line.split(" ")[0]) == name), None)
    return wait_for(f"{name} to run", find)


def serve(place: Place, *command: str, log: str) -> int:
    place.start("taskset", "-c", SERVER_CPU, *command, log=log)
    return pid_of(place, os.path.basename(command[0]))


def start_relay(place: Place, loader: str) -> tuple[int, Loader]:
    """altnetd as a network's first relay, and two members that reach each other by it."""
    provision = str(BINARIES / "altnet-provision")
    place.run(provision, "network", "create", "home")
    place.run(provision, "bundle", "--name", "relay1", "--role", "relay", "--role", "directory", "--admit",
              "--endpoint", RELAY, "-o", "relay1.bundle")
    links = []
    for name in ("one", "two"):
        said = place.run(provision, "invite", "create", "--name", name, "--role", "gateway", "--site", str(1 + len(links)), "--no-qr")
        links.append(f"{name}={said.stdout.split()[-1]}")
    pid = serve(place, str(BINARIES / "altnetd"), log="altnetd.log")
    altnet = str(BINARIES / "altnet")
    wait_for("altnetd to answer", lambda: place.run(altnet, "status", check=False).returncode == 0)
    place.run(altnet, "join", "--bundle", "relay1.bundle")
    return pid, Loader(place, loader, "members", RELAY, *links)


def start_coturn(place: Place, loader: str, turnserver: str) -> tuple[int, Loader, Loader]:
    """coturn, two clients with an allocation each, and one with a peer that has none."""
    host, port = TURN.split(":")
    pid = serve(place, turnserver, "-n", "-L", host, "-p", port, "--relay-ip", host, "-m", "1", "--no-tls", "--no-dtls",
                "--lt-cred-mech", "--user", "user:word", "--realm", "bench", "--allow-loopback-peers", "--no-cli",
                "--log-file", "stdout", "--db", "/run/turndb", "--pidfile", "/run/turn.pid", log="coturn.log")
    listens = f":{int(port):04X} "
    wait_for("coturn to listen", lambda: listens in pathlib.Path(f"/proc/{pid}/net/udp").read_text())
    two, one = (Loader(place, loader, kind, TURN, "user", "word") for kind in ("turn", "turn-one"))
    return pid, two, one


def measure_tls(place: Place, loader: str) -> dict:
    """What altnet-derp takes for many real clients, and what two of them cost."""
    pid = serve(place, str(BINARIES / "altnet-derp"), "--listen", DERP, "--self-signed", "/run/derp", "--admit", "any",
                "--threads", "1", "--json", log="derp.log")
    log = place.lab.dir / "derp.log"
    pin = wait_for("altnet-derp to listen", lambda: re.search(r'"pin":\s*"([^"]+)"', log.read_text()))[1]
    # Two clients have come and gone: what is made for the first of them isn't counted for the others.
    Loader(place, loader, "derp", DERP, pin, "2").end()
    before = rss_bytes(pid)
    loads = Loader(place, loader, "derp", DERP, pin, str(TLS_CLIENTS))
    if (connected := len(os.listdir(f"/proc/{pid}/fd"))) < TLS_CLIENTS:
        raise SystemExit(f"only {connected} of {TLS_CLIENTS} clients are connected")
    bytes_per_client = (rss_bytes(pid) - before) / TLS_CLIENTS
    rounds = [loads.load(pid, BIG, True) for _ in range(ROUNDS)]
    loads.end()
    return {"bytes_per_client": round(bytes_per_client), **medians(rounds)}


def medians(rounds: list[dict]) -> dict:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def measure(lab: Lab, loader: str, turnserver: str) -> dict:
    place = lab.place("relay")
    facts = measure_udp(place, loader, turnserver)
    tls = measure_tls(place, loader)
    facts["tls_cpu_s_per_gb"] = tls["cpu_s_per_gb"]
    facts["tls"] = tls
    table = Loader(place, loader, "table", str(IDLE_CLIENTS))
    table.end()
    udp_bytes = table.said["bytes"] / IDLE_CLIENTS
    facts["bytes_per_idle_client"] = {"udp": round(udp_bytes), "tls": tls["bytes_per_client"]}
    idle = (IDLE_CLIENTS - TLS_CLIENTS) * udp_bytes + TLS_CLIENTS * tls["bytes_per_client"]
    facts["idle_clients_bytes"] = round(idle)
    return facts


def measure_udp(place: Place, loader: str, turnserver: str) -> dict:
    relay, members = start_relay(place, loader)
    coturn, two, one = start_coturn(place, loader, turnserver)
    loaded = {"altnet": (relay, members), "coturn": (coturn, two), "coturn_one_allocation": (coturn, one)}
    kinds = [(size, trains) for trains in (True, False) for size in (BIG, SMALL)]
    rounds = {(name, kind): [] for name in loaded for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            for name, (pid, loads) in loaded.items():
                rounds[name, kind].append(loads.load(pid, *kind))
    for _, loads in loaded.values():
        loads.end()

    def ratio(what: str, other: str, trains: bool, is_less_better: bool) -> float:
        """How many times better we are, round by round: the median of the size that suits us less."""
        worst = []
        for size in (BIG, SMALL):
            pairs = [(a[what], b[what]) for a, b in zip(rounds["altnet", (size, trains)], rounds[other, (size, trains)])]
            worst.append(statistics.median(b / a if is_less_better else a / b for a, b in pairs))
        return min(worst)

    facts: dict = {"ratio": {}}
    for trains, suffix in ((True, ""), (False, "_singly")):
        for other in ("coturn", "coturn_one_allocation"):
            facts["ratio"][f"udp_cpu_vs_{other}{suffix}"] = ratio("cpu_s_per_gb", other, trains, True)
            facts["ratio"][f"udp_pps_vs_{other}{suffix}"] = ratio("packets_per_s", other, trains, False)
        for size in (BIG, SMALL):
            facts[f"udp_{size}_bytes{suffix}"] = {name: medians(rounds[name, (size, trains)]) for name in loaded}
    facts["udp_cpu_s_per_gb"] = facts[f"udp_{BIG}_bytes"]["altnet"]["cpu_s_per_gb"]
    facts["udp_cpu_s_per_million_packets"] = facts[f"udp_{SMALL}_bytes"]["altnet"]["cpu_s_per_million_packets"]
    return facts


def show(facts: dict, indent: int = 0) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{'':{indent}}{name}")
            show(value, indent + 2)
        else:
            print(f"{'':{indent}}{name:{34 - indent}} {value:.4g}")


def main(loader: str, turnserver: str, *words: str) -> int:
    many = 4 * TLS_CLIENTS
    resource.setrlimit(resource.RLIMIT_NOFILE, (many, max(many, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    with Lab() as lab:
        lab.environment = {"ALTNET_PASSPHRASE": secrets.token_urlsafe(16)}
        facts = measure(lab, loader, turnserver)
    if "--json" in words:
        print(json.dumps(facts, indent=2))
    else:
        show(facts)
    print(f"aim: {RATIO_AIM} times coturn, and {IDLE_AIM_BYTES} bytes", file=sys.stderr)
    ratio = facts["ratio"]
    is_met = min(ratio["udp_cpu_vs_coturn"], ratio["udp_pps_vs_coturn"]) >= RATIO_AIM
    return 0 if is_met and facts["idle_clients_bytes"] <= IDLE_AIM_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
