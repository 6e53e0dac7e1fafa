"""Bad input: one clear sentence, exit 1, and nothing changed on either side."""

import hashlib
import json

from lab import homes
from lab.altnet import Story, altnet
from lab.places import Lab, LabError, Place, wait_for


def bad_invites_are_refused() -> None:
    """Altered, used up, revoked, expired and foreign invites: refused, with no state changed anywhere."""
    with Lab() as lab:
        story = network_with_one_gateway(lab)
        stranger, relay, owner = story.internet.b.gateway, story.internet.relay, story.internet.owner
        story.daemons[stranger.name] = story.daemons[story.internet.a.gateway.name]
        story.start(stranger)

        good = invite(owner, "good")
        used = (story.internet.a.gateway.folder / "house-a.invite").read_text().strip()
        revoked = invite(owner, "revoked")
        owner.run("altnet-provision", "invite", "revoke", "revoked")
        expired = invite(owner, "expired", "--expires", "1s")
        owner.run("altnet-provision", "network", "create", "elsewhere")
        # A relay of that other network, said to be where this one's is.
        owner.run(
            "altnet-provision", "--network", "elsewhere", "bundle", "--name", "relay1", "--role", "relay", "--role", "directory", "--admit",
            "--endpoint", f"{homes.RELAY}:51820", "-o", "elsewhere.bundle",
        )
        foreign = invite(owner, "foreign", network="elsewhere")
        last = "a" if good[-1] != "a" else "b"
        cases = {
            "altered secret": good[:-1] + last,
            "altered public half": altered_before_fragment(good),
            "used up": used,
            "revoked": revoked,
            "expired": expired,
            "for another network": foreign,
            "not an invite": "https://example.org/",
        }
        wait_for("the invite to expire", lambda: status_of(owner, "expired") == "expired")
        for name, link in cases.items():
            refuse(name, stranger, relay, "altnet", "join", link)
        stranger.run("altnet", "join", good, timeout_s=60)
        assert altnet(stranger, "status")["state"] == "member", "the good invite no longer works"


def damaged_files_are_refused() -> None:
    """A damaged bundle, configuration and key file: refused by name, with no state changed."""
    with Lab() as lab:
        story = network_with_one_gateway(lab)
        stranger, relay, owner = story.internet.b.gateway, story.internet.relay, story.internet.owner
        story.daemons[stranger.name] = story.daemons[story.internet.a.gateway.name]
        story.start(stranger)
        # It answers before its first state is on disk.
        wait_for("its keys to be kept", lambda: {"identity", "place"} <= {path.rsplit("/", 1)[-1].split(".")[0] for path in state(stranger)})

        bundle = (relay.folder / "relay1.bundle").read_bytes()
        for name, content in {"cut": bundle[: len(bundle) // 2], "flipped": flipped(bundle), "empty": b""}.items():
            (stranger.folder / f"{name}.bundle").write_bytes(content)
            refuse(f"{name} bundle", stranger, relay, "altnet", "join", "--bundle", f"{name}.bundle")

        (stranger.folder / "bad.toml").write_text("listen_prot = 51820\n")
        for command in (["altnet", "config", "check", "bad.toml"], ["altnetd", "--config", "bad.toml"]):
            said = refuse("misspelt key", stranger, relay, *command)
            assert "listen_prot" in said, f"the sentence does not name the key: {said}"

        keys = [path for path in owner.path("/run/home/.config/altnet").rglob("*") if path.is_file() and "age" in path.read_bytes()[:64].decode("latin-1")]
        assert keys, "the owner's computer holds no encrypted key file"
        for key in keys:
            before = key.read_bytes()
            key.write_bytes(flipped(before))
            refuse(f"damaged {key.name}", owner, relay, "altnet-provision", "invite", "create", "--no-qr")
            key.write_bytes(before)


def network_with_one_gateway(lab: Lab) -> Story:
    """The README's story without home B's gateway."""
    story = Story(lab)
    story.tell(without={"gateway-b"})
    return story


def invite(owner: Place, name: str, *more: str, network: str = "home") -> str:
    """Makes an invite and returns its link."""
    words = ["altnet-provision", "--network", network, "invite", "create", "--name", name, "--role", "gateway", "--no-qr", *more]
    return owner.run(*words).stdout.strip()


def status_of(owner: Place, name: str) -> str:
    """How the owner's computer says that an invite stands."""
    invites = json.loads(owner.run("altnet-provision", "--network", "home", "invite", "list", "--json").stdout)["invites"]
    return next(invite["status"] for invite in invites if invite["name"] == name)


def altered_before_fragment(link: str) -> str:
    """The link with one letter in the middle of its signed half changed."""
    signed, mark, secret = link.partition("#")
    at = len(signed) // 2
    return signed[:at] + ("a" if signed[at] != "a" else "b") + signed[at + 1 :] + mark + secret


def flipped(content: bytes) -> bytes:
    """The content with one bit in its middle changed."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def refuse(name: str, place: Place, relay: Place, *command: str) -> str:
    """Runs a command that must be refused; returns the sentence it was refused with."""
    before = state(place), records(relay)
    done = place.run(*command, check=False, timeout_s=60)
    sentence = done.stderr.strip()
    print(f"{name:22} {' '.join(sentence.splitlines())}")
    assert done.returncode == 1, f"{name}: exit {done.returncode}, not 1\n{done.stdout}{done.stderr}"
    # What is wrong; below it, where, or what to do.
    assert 1 <= len(sentence.splitlines()) <= 3 and "panicked" not in sentence, f"{name}: not one clear sentence: {sentence!r}"
    if (state(place), records(relay)) != before:
        raise LabError(f"{name}: something changed")
    return sentence


def state(place: Place) -> dict[str, str]:
    """What a place's node keeps on disk, by content; not its audit log, which says that something was refused."""
    root = place.path("/var/lib/altnet")
    files = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "audit"]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def records(place: Place) -> list:
    """The records a place's node holds."""
    return sorted((record["kind"], record["id"], record["serial"]) for record in altnet(place, "records")["records"])


SCENARIOS = [bad_invites_are_refused, damaged_files_are_refused]
