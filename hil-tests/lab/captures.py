"""What a listener on a cable sees."""

import secrets
import signal
import struct
import subprocess
from collections import Counter
from typing import Iterator

from .places import Place, wait_for

ETHERNET, IPV4, UDP = 14, 0x0800, 17
TRANSPORT = bytes([4, 0, 0, 0])
RELAY_HEADER_BYTES = {b"\x10": 28, b"\x11": 20}


class Capture:
    """A running tcpdump. `stop` it before looking inside."""

    def __init__(self, place: Place, interface: str, filter: str = ""):
        self.path = place.lab.dir / f"{place.name}-{interface}.pcap"
        log = f"{place.name}-{interface}.tcpdump"
        self._process = place.lab._spawn(
            [*place.enter(), "tcpdump", "-Z", "root", "-i", interface, "-n", "-U", "--immediate-mode", "-s", "0", "-w", str(self.path), *filter.split()],
            stdout=subprocess.DEVNULL, stderr=open(place.lab.dir / log, "wb"),
        )
        wait_for(f"tcpdump on {interface} of {place.name}", lambda: "listening on" in (place.lab.dir / log).read_text())

    def stop(self) -> None:
        """Ends the capture; what was seen is on disk then."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def frames(self) -> Iterator[bytes]:
        """The captured Ethernet frames."""
        data = self.path.read_bytes()
        at = 24
        while at + 16 <= len(data):
            length = struct.unpack_from("<I", data, at + 8)[0]
            yield data[at + 16 : at + 16 + length]
            at += 16 + length

    def contains(self, text: str) -> bool:
        """Whether any frame holds the text, whole."""
        return any(text.encode() in frame for frame in self.frames())

    def datagrams(self) -> Iterator[tuple[str, str, bytes]]:
        """The IPv4 UDP datagrams: from, to, payload."""
        for frame in self.frames():
            if len(frame) < ETHERNET + 28 or struct.unpack_from(">H", frame, 12)[0] != IPV4 or frame[23] != UDP:
                continue
            start = ETHERNET + 4 * (frame[ETHERNET] & 15)
            source, destination = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
            from_port, to_port, length = struct.unpack_from(">HHH", frame, start)
            yield f"{source}:{from_port}", f"{destination}:{to_port}", frame[start + 8 : start + length]

    def sealed(self) -> Counter:
        """How many transport messages passed, `direct` and `relayed`.

        A transport message of WireGuard begins 4 0 0 0; a relay's header (0x10 towards it, 28
        bytes; 0x11 from it, 20 bytes) may stand before it.
        """
        seen = Counter(direct=0, relayed=0)
        for _, _, payload in self.datagrams():
            header = RELAY_HEADER_BYTES.get(payload[:1], 0)
            if payload[header : header + 4] == TRANSPORT:
                seen["relayed" if header else "direct"] += 1
        return seen


def canary() -> str:
    """A string that occurs nowhere else."""
    return f"canary{secrets.token_hex(16)}"
