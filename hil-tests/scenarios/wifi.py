"""Wi-Fi by hostapd, on radios that the kernel makes, with other people's client."""

from lab.altnet import PYTHON
from lab.places import Lab, wait_for
from lab.providers import PAGE, SITE4, House, Provider, prepare
from lab.radios import Phone, switch_on

from .router import BARE, serve

HOME, HOME_PASSWORD = "home of Anna & Ben", "correct horse 7"
GUESTS, GUEST_PASSWORD = "guests", "wrong battery 8"
AIR = BARE + f"""[[router.network]]
name = "lan"
[[router.network]]
name = "guest"
isolated = true
[[router.wifi]]
country = "CH"
{{band}}
[[router.wifi.ssid]]
name = "{HOME}"
password = "{HOME_PASSWORD}"
[[router.wifi.ssid]]
name = "{GUESTS}"
network = "guest"
password = "{GUEST_PASSWORD}"
"""
LAN, GUEST_NET = "192.168.77.", "192.168.78."
DESK = 8000  # a page on the LAN's cable


def phones_join_by_wpa3_and_wpa2() -> None:
    """At 5 GHz a phone joins by SAE and another time by WPA2, is on the LAN and online; with a wrong passphrase it stays out, either way."""
    prepare()
    with Lab() as lab:
        house, phone, inside = on_the_air(lab, 'band = "5"\nwidth = "80"')
        for how, management in (("sae", "SAE"), ("psk", "WPA2-PSK")):
            phone.join(HOME, "incorrect horse", how)
            wait_for("the wrong passphrase to be refused", lambda: "auth_failures=" in phone.log(), timeout_s=60)
            assert phone.status().get("wpa_state") != "COMPLETED", phone.status()
            phone.leave()
            phone.join(HOME, HOME_PASSWORD, how)
            status = phone.joined()
            assert status["key_mgmt"] == management and status["pairwise_cipher"] == "CCMP", status
            assert status["freq"] == "5180", status
            address = phone.lease()
            assert address.startswith(LAN), address
            wait_for("the page", lambda: phone.gets(f"http://{SITE4}/") == PAGE, timeout_s=30)
            assert phone.gets(inside) == "inside", "the phone doesn't reach the LAN's cable"
            print(f"by {management} at {status['freq']} MHz the phone has {address}")
            phone.leave()
        assert HOME_PASSWORD not in house.log() and GUEST_PASSWORD not in house.log(), "a password is in the log"


def guests_on_the_air_reach_the_internet_and_nothing_else() -> None:
    """At 2.4 GHz a guest's phone is online, and reaches neither the LAN nor the box nor another guest; the LAN's password opens no guest network."""
    prepare()
    with Lab() as lab:
        other = Phone(lab, "other")
        house, phone, inside = on_the_air(lab, 'band = "2.4"', other)
        phone.join(GUESTS, HOME_PASSWORD, "sae")
        wait_for("the wrong passphrase to be refused", lambda: "auth_failures=" in phone.log(), timeout_s=60)
        addresses = []
        for each, how in ((phone, "sae"), (other, "psk")):
            each.join(GUESTS, GUEST_PASSWORD, how)
            each.joined()
            addresses.append(each.lease())
            wait_for("the page", lambda: each.gets(f"http://{SITE4}/") == PAGE, timeout_s=30)
        assert all(address.startswith(GUEST_NET) for address in addresses), addresses
        serve_at(other)
        assert phone.gets(inside) == "", "a guest reaches the LAN"
        assert phone.gets(f"http://{addresses[1]}:{DESK}/") == "", "a guest reaches another guest"
        pings = lambda host: phone.place.run("ping", "-c", "1", "-W", "2", host, check=False).returncode == 0
        assert not pings(addresses[1]), "a guest's pings reach another guest"
        assert pings(f"{GUEST_NET}1") and not pings(inside.split("/")[2].split(":")[0])
        assert house.client.run("curl", "--silent", "--max-time", "3", f"http://{addresses[1]}:{DESK}/", check=False).stdout == ""
        # What keeps them apart is the access point and the firewall, not that there is no page.
        assert other.gets(f"http://{addresses[1]}:{DESK}/") == "inside"
        print(f"guests at {' and '.join(addresses)} have the internet alone")


def on_the_air(lab: Lab, band: str, *others: Phone) -> tuple[House, Phone, str]:
    """A house whose router has a radio, a phone near it, and the address of a page on the LAN's cable."""
    provider, house, phone = Provider(lab), House(lab, AIR.format(band=band)), Phone(lab)
    switch_on(house.router, phone.place, *(other.place for other in others))
    house.ports["radios"] = ["wlan0"]
    provider.plug(house)
    house.start()
    wait_for("hostapd to run", lambda: any(child["name"].startswith("hostapd") and child["state"] == "runs" for child in house.ask("status")["children"]))
    wait_for("the access point", lambda: "AP-ENABLED" in house.log(), timeout_s=60)
    address = house.lease()
    serve(house, DESK)
    return house, phone, f"http://{address}:{DESK}/"


def serve_at(phone: Phone) -> None:
    """Puts a page on a phone."""
    folder = phone.place.folder / "www"
    folder.mkdir()
    (folder / "index.html").write_text("inside")
    phone.place.start(PYTHON, "-m", "http.server", "--directory", str(folder), str(DESK), log=f"{phone.place.name}-http.log")
    wait_for("the phone's page", lambda: f":{DESK}" in phone.place._tool("ss", "-Hltn"))


SCENARIOS = []
GUEST = [phones_join_by_wpa3_and_wpa2, guests_on_the_air_reach_the_internet_and_nothing_else]
