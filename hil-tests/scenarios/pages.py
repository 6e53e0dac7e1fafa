"""A page of home B, read on a computer of home A."""

import json
import os
import shutil
import signal
import subprocess

from lab import captures, clients
from lab.altnet import ROOT, Story, altnet, path_between_homes
from lab.places import CannotRunHere, Lab, wait_for


def page_over_relay() -> None:
    """Two NATs that choose ports at random: the page comes over the relay, sealed."""
    check("symmetric", "symmetric", path="relay")


def page_direct() -> None:
    """A reachable gateway: the page comes directly, sealed, and the relay is left alone."""
    check("portcone", "public", path="direct")


def an_app_is_reached_by_its_own_key() -> None:
    """An app of home B: by its name and key, told who asks whatever the caller claims, and nothing beside it."""
    canary = captures.canary()
    with Lab() as lab:
        story = Story(lab, "portcone", "public", page=canary)
        wire = captures.Capture(story.internet.bridge, "br0")
        story.tell()
        client, gateway_b = story.internet.a.client, story.internet.b.gateway
        address = clients.address(client)
        url = story.url().replace("wiki", "notes")
        claims = ["Altnet-Caller-Person: owner", "altnet_caller_member: house-b", "ALTNET-CALLER-ADDRESS: ::1", "X-Forwarded-For: 10.0.0.1",
                  "Connection: altnet-caller-address", "Altnet-App: other"]
        words = ["curl", "-6", "--silent", "--fail", "--max-time", "10", *(word for claim in claims for word in ("-H", claim)), url]

        def told() -> list:
            answer = json.loads(wait_for("the app to answer", lambda: client.run(*words, check=False).stdout or None, timeout_s=60))
            assert canary in answer["text"], "another app answered"
            return [tuple(header) for header in answer["headers"]]

        def check(headers: list) -> None:
            ours = {name: value for name, value in headers if "altnet" in name or "forwarded" in name}
            assert len(ours) == len([name for name, _ in headers if "altnet" in name or "forwarded" in name]), f"one twice: {headers}"
            assert ours["altnet-caller-address"] == address and ours["altnet-caller-member"] == "house-a", ours
            assert ours["altnet-app"] == "notes" and ours["x-forwarded-for"] == address, ours
            assert not {"owner", "house-b", "::1", "10.0.0.1", "other"} & set(ours.values()), f"a claim got through: {ours}"

        check(told())
        print("told who asks")
        app = altnet(gateway_b, "app", "list")["apps"][0]
        beside = [f"http://[{app['address']}]:8000/", f"http://[{clients.address(story.internet.b.client)}]:8000/"]
        for other in beside:
            done = client.run("curl", "-6", "--silent", "--max-time", "3", other, check=False)
            assert done.returncode in (7, 28), f"{other} was reached"
        print("and nothing beside it")
        story.stop(gateway_b)
        story.start(gateway_b)
        check(told())
        assert altnet(gateway_b, "app", "list")["apps"][0]["address"] == app["address"], "it has another address after a restart"
        gateway_b.run("altnet", "app", "remove", "notes")
        gone = client.run("curl", "-6", "--silent", "--max-time", "5", url, check=False)
        assert gone.returncode != 0, "it answers although it was removed"
        wire.stop()
        assert not wire.contains(canary), "the page crossed the internet in the clear"


def an_app_is_opened_by_https() -> None:
    """An app of home B by https, told who asks: trusted with the network's authority, refused without it and for other names."""
    canary = captures.canary()
    with Lab() as lab:
        story = Story(lab, "portcone", "public", page=canary)
        story.tell()
        client, owner = story.internet.a.client, story.internet.owner
        gateway_a, gateway_b = story.internet.a.gateway, story.internet.b.gateway
        owner.run("altnet-provision", "tls", "create")
        gateway_b.run("altnet", "app", "add", "journal", "--http", "--tls", "--to", "192.168.2.2:8000")
        with (owner.folder / "policy.toml").open("a") as policy:
            policy.write(JOURNAL_RULE)
        owner.run("altnet-provision", "policy", "publish", "policy.toml", "--yes")

        def asked() -> bool:
            owner.run("altnet-provision", "sync")
            listed = json.loads(owner.run("altnet-provision", "tls", "list", "--json").stdout)
            return any(one["name"] == "journal" and one["state"] == "waiting" for one in listed["requests"])

        def tls() -> dict:
            return next(app for app in altnet(gateway_b, "app", "list")["apps"] if app["name"] == "journal")["tls"]

        wait_for("the gateway to ask for a certificate", asked)
        assert tls()["state"] == "waiting", tls()
        signed = json.loads(owner.run("altnet-provision", "tls", "sign", "--yes", "--json").stdout)["signed"]
        assert [one["device"] for one in signed] == ["house-b"], signed
        wait_for("the certificate to come", lambda: tls()["state"] == "certified")
        print(f"signed until {tls()['until']}")
        wait_for("the other gateway to know the authority", lambda: gateway_a.run("altnet", "tls", "ca", check=False).returncode == 0)
        gateway_a.run("altnet", "tls", "ca", "--output", "ca.pem")
        shutil.copy(gateway_a.folder / "ca.pem", client.folder)
        url, address = "https://journal.home.alt/", clients.address(client)

        def open_with(*words: str) -> subprocess.CompletedProcess:
            return client.run("curl", "-6", "--silent", "--show-error", "--fail", "--max-time", "10", *words, check=False)

        clients.resolver(client)
        answer = json.loads(wait_for("the app to answer", lambda: open_with("--cacert", "ca.pem", url).stdout or None))
        told = dict(answer["headers"])
        assert canary in answer["text"], "another app answered"
        assert told["altnet-caller-address"] == address and told["altnet-caller-member"] == "house-a", told
        assert told["x-forwarded-proto"] == "https", told
        network = json.loads(owner.run("altnet-provision", "network", "show", "--json").stdout)["id"]
        by_id = open_with("--cacert", "ca.pem", f"https://journal.{network}.alt/")
        assert canary in by_id.stdout, f"not by the network's id: {by_id.stderr}"
        refused = {"without the authority": [url], "as somebody else": ["--cacert", "ca.pem", "--connect-to", "::journal.home.alt:443", "https://bank.example/"]}
        for how, words in refused.items():
            done = open_with(*words)
            assert done.returncode == 60 and canary not in done.stdout, f"taken {how}: {done.returncode} {done.stderr}"
        print("told who asks, and refused without the authority")

        story.stop(gateway_b)
        story.start(gateway_b)
        wait_for("the app to answer after a restart", lambda: canary in open_with("--cacert", "ca.pem", url).stdout)
        for pid, line in gateway_b.processes().items():
            if "altnet-tls" in line:
                os.kill(pid, signal.SIGKILL)
        wait_for("the app to answer after altnet-tls was killed", lambda: canary in open_with("--cacert", "ca.pem", url).stdout)


def chromium_opens_the_page() -> None:
    """An unmodified browser, on a computer without IPv6 from an ISP, opens the page by its name."""
    if subprocess.run([ROOT / "ci/install", "browser"]).returncode:
        raise CannotRunHere("chromium could not be installed")
    canary = captures.canary()
    with Lab() as lab:
        story = Story(lab, page=f"<p id=found>{canary}</p>")
        story.tell()
        story.fetch()
        seen = story.internet.a.client.run(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=/run/home/chromium",
            "--virtual-time-budget=10000", "--dump-dom", story.url(), timeout_s=120,
        ).stdout
        assert canary in seen, f"the browser shows something else:\n{seen[:2000]}"


def check(kind_a: str, kind_b: str, path: str) -> None:
    """Tells the story and holds it to the path it should end on."""
    canary = captures.canary()
    with Lab() as lab:
        story = Story(lab, kind_a, kind_b, page=canary)
        wire = captures.Capture(story.internet.bridge, "br0")
        story.tell()
        assert canary in story.fetch(), "the page is another one"
        wait_for(f"the path to be {path}", lambda: path_between_homes(story) == path)
        story.fetch()
        wire.stop()
        sealed = wire.sealed()
        print(f"path {path_between_homes(story)}, sealed packets {dict(sealed)}")
        assert sealed["relayed" if path == "relay" else "direct"] > 0, f"no packet was sealed: {dict(sealed)}"
        assert not wire.contains(canary), "the page crossed the internet in the clear"


JOURNAL_RULE = """
[[rules]]
name = "journal-for-house-a"
from = ["site:1"]
to = ["app:journal@house-b"]
services = ["tcp/80", "tcp/443"]
"""

SCENARIOS = [page_over_relay, page_direct, an_app_is_reached_by_its_own_key, an_app_is_opened_by_https]
LONG = [chromium_opens_the_page]
