"""What a gateway weighs: called by `ci/bench footprint` with the folder of the static binaries."""

import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab import altnet  # noqa: E402
from lab.places import Lab, wait_for  # noqa: E402

BINARY_AIM_BYTES, RSS_AIM_BYTES = 3_000_000, 8_000_000


def main(binaries: str, *words: str) -> int:
    with Lab() as lab:
        # The owner's tool is not for routers: it stays as it was built for this machine.
        story = altnet.Story(lab, also_in_path=binaries)
        story.tell()
        story.fetch()
        gateway = story.internet.a.gateway
        wait_for("gateway A to have two peers", lambda: len(altnet.altnet(gateway, "peers")["peers"]) >= 2)
        [pid] = story.running(gateway)
        binary = pathlib.Path(f"/proc/{pid}/exe").resolve()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        facts = {
            "binary": str(binary.relative_to(altnet.ROOT)) if binary.is_relative_to(altnet.ROOT) else str(binary),
            "binary_bytes": binary.stat().st_size,
            "rss_bytes_2_peers": 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]),
            "peak_rss_bytes": 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]),
        }
    if "--json" in words:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:18} {value}")
    print(f"aim: {BINARY_AIM_BYTES} and {RSS_AIM_BYTES}", file=sys.stderr)
    return 0 if facts["binary_bytes"] < BINARY_AIM_BYTES and facts["rss_bytes_2_peers"] < RSS_AIM_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
