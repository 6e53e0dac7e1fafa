"""Radios that are made of air: the kernel's mac80211_hwsim, and a phone with wpa_supplicant. Only in a guest (`lab.guest`)."""

import pathlib
import subprocess

from .places import Lab, LabError, Place, wait_for
from .providers import DHCLIENT, addresses

SUPPLICANT = "/run/wpa_supplicant"


def switch_on(*places: Place) -> None:
    """Gives each place a radio of its own, `wlan0` there, that hears the others."""
    load = ["modprobe", "mac80211_hwsim", f"radios={len(places)}"]
    subprocess.run(["rmmod", "mac80211_hwsim"], capture_output=True)
    done = subprocess.run(load, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"there are no radios: {done.stderr.strip()}")
    phys = wait_for("the radios", lambda: len(found := sorted(pathlib.Path("/sys/class/ieee80211").iterdir())) == len(places) and found)
    for phy, place in zip(phys, places):
        [device] = (phy / "device/net").iterdir()
        subprocess.run(["ip", "link", "set", device.name, "down"], check=True)
        subprocess.run(["iw", "phy", phy.name, "set", "netns", str(place.pid)], check=True)
        place.ip("link", "set", device.name, "name", "wlan0")


class Phone:
    """A computer with a radio, wpa_supplicant and ISC's dhclient."""

    def __init__(self, lab: Lab, name: str = "phone"):
        self.place = lab.place(name)
        self._running: list[subprocess.Popen] = []
        self._since = 0  # where in its log the last join begins

    def join(self, ssid: str, password: str, how: str) -> None:
        """Begins to look for a network and to join it: `how` is `sae` (WPA3) or `psk` (WPA2)."""
        self.leave()
        log = self.place.lab.dir / f"{self.place.name}-wpa.log"
        self._since = log.stat().st_size if log.exists() else 0
        keys = {"sae": f'key_mgmt=SAE\nsae_password="{password}"\nieee80211w=2', "psk": f'key_mgmt=WPA-PSK\npsk="{password}"\nieee80211w=0'}[how]
        file = self.place.folder / "wpa.conf"
        file.write_text(f'ctrl_interface={SUPPLICANT}\nsae_pwe=2\nnetwork={{\nssid="{ssid}"\nscan_ssid=1\n{keys}\n}}\n')
        self._start("wpa_supplicant", "-i", "wlan0", "-D", "nl80211", "-c", str(file), log=f"{self.place.name}-wpa.log")

    def status(self) -> dict[str, str]:
        """What wpa_supplicant says of its connection."""
        done = self.place.run("wpa_cli", "-p", SUPPLICANT, "-i", "wlan0", "status", check=False)
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def joined(self, patience_s: float = 30) -> dict[str, str]:
        """Waits until it is in the network, and says how."""

        def is_in() -> dict | None:
            status = self.status()
            return status if status.get("wpa_state") == "COMPLETED" else None

        return wait_for(f"{self.place.name} to join", is_in, patience_s, every_s=0.25)

    def log(self) -> str:
        """What wpa_supplicant said since it began to join."""
        return (self.place.lab.dir / f"{self.place.name}-wpa.log").read_bytes()[self._since :].decode(errors="replace")

    def lease(self) -> str:
        """Asks for an IPv4 address, and returns it."""
        folder = self.place.folder
        self._start(
            str(DHCLIENT), "-4", "-d", "-cf", "/dev/null", "-lf", str(folder / "dhclient.leases"), "-pf", "/run/dhclient.pid",
            "-sf", str(DHCLIENT.with_name("dhclient-script")), "wlan0", log=f"{self.place.name}-dhclient.log",
        )
        return wait_for(f"an IPv4 address of {self.place.name}", lambda: next(iter(addresses(self.place, "wlan0", 4)), None), timeout_s=30)

    def leave(self) -> None:
        """Leaves the network, and forgets its addresses and leases."""
        for started in self._running:
            started.terminate()
            started.wait()
        self._running.clear()
        self.place.ip("address", "flush", "dev", "wlan0", "scope", "global")
        (self.place.folder / "dhclient.leases").unlink(missing_ok=True)

    def gets(self, url: str) -> str:
        """A page as it sees it; nothing if none comes."""
        return self.place.run("curl", "--silent", "--fail", "--max-time", "5", url, check=False).stdout

    def _start(self, *command: str, log: str) -> None:
        self._running.append(self.place.start(*command, log=log))
