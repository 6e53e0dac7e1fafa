"""An ISP's router that opens ports when it is asked: miniupnpd, on the translator of a home."""

import os
import signal
import subprocess
import time

from . import network
from .altnet import ROOT, TARGET
from .homes import Home, Internet
from .places import CannotRunHere, wait_for

MINIUPNPD = TARGET / "ci-tools/miniupnpd/usr/sbin/miniupnpd"
# miniupnpd maps nothing to an address for documentation, so the home gets one that looks like
# anybody's. It leaves no namespace.
PUBLIC = "203.0.112.21"
# Where miniupnpd writes its rules: the chains of the packaged nft_init.sh, and what any home's
# router has around them.
CHAINS = """
delete chain inet wall forward
table inet filter {
    chain forward {
        type filter hook forward priority 0;
        ct state established,related accept
        iifname "line" accept
        jump miniupnpd
        drop
    }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"""


class Router:
    """The router of a home's ISP."""

    def __init__(self, internet: Internet, home: Home):
        if subprocess.run([ROOT / "ci/install", "ports"]).returncode or not MINIUPNPD.exists():
            raise CannotRunHere("miniupnpd could not be had")
        self.isp, self.line = home.isp, f"100.64.{1 if home.letter == 'a' else 2}"
        self._process: subprocess.Popen | None = None
        self._started = 0.0
        network.address(internet.bridge, "br0", "203.0.112.1/24")
        self.isp.ip("address", "flush", "dev", "uplink")
        network.address(self.isp, "uplink", f"{PUBLIC}/24")
        network.route_by(self.isp, "203.0.112.1")
        self.nft(CHAINS)

    def nft(self, rules: str) -> None:
        """Adds rules."""
        self.isp._tool("nft", "-f", "-", stdin=rules)

    def start(self, *settings: str) -> None:
        """Starts miniupnpd with these settings beside those that it needs."""
        (self.isp.folder / "miniupnpd.conf").write_text("\n".join([
            "ext_ifname=uplink", "listening_ip=line", "http_port=5000", f"lease_file={self.isp.folder}/leases", f"lease_file6={self.isp.folder}/leases6",
            "upnp_table_name=filter", "upnp_nat_table_name=filter", "upnp_forward_chain=miniupnpd",
            "upnp_nat_chain=prerouting_miniupnpd", "upnp_nat_postrouting_chain=postrouting_miniupnpd",
            "uuid=7a1f8c5e-0f6b-4f57-9a55-1d4a5cbe7f10", *settings,
            f"allow 1024-65535 {self.line}.0/24 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535", "",
        ]))
        self._process = self.isp.start(
            str(MINIUPNPD), "-d", "-f", "miniupnpd.conf", "-P", "/run/miniupnpd.pid", log=f"{self.isp.name}-miniupnpd.log"
        )
        self._started = time.monotonic()
        listening = lambda: ":5000 " in self.isp._tool("ss", "-Hltn") or "5351 " in self.isp._tool("ss", "-Hlun")
        wait_for("miniupnpd to listen", listening)

    def restart(self, *settings: str) -> None:
        """Starts miniupnpd as a router starts that was without power: it knows of no mapping."""
        self.stop()
        self.nft("flush chain inet filter miniupnpd; flush chain inet filter prerouting_miniupnpd")
        for leases in self.isp.folder.glob("leases*"):
            leases.unlink()
        assert not self.opens(), "the kernel still lets a port through"
        self.start(*settings)

    def stop(self) -> None:
        """Ends miniupnpd without a word to anybody."""
        os.kill(self._pid(), signal.SIGKILL)
        self._process.wait()

    def age_s(self) -> float:
        """For how long miniupnpd has been running."""
        return time.monotonic() - self._started

    def opens(self) -> bool:
        """Whether the kernel lets any port through."""
        chains = ("miniupnpd", "prerouting_miniupnpd")
        return any("dport" in self.isp._tool("nft", "list", "chain", "inet", "filter", chain) for chain in chains)

    def _pid(self) -> int:
        return next(pid for pid, line in self.isp.processes().items() if line.startswith(str(MINIUPNPD)))
