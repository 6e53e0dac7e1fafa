"""A box without a bundle is claimed over its LAN."""

import json
import subprocess

from lab import appliances
from lab.altnet import Story, altnet
from lab.altnet import PYTHON as OURS
from lab.appliances import Appliance
from lab.places import Lab, Place, wait_for
from lab.providers import SCAN, Provider
from lab.unclaimed import PYTHON, Unclaimed, claim, other_code, prepare, shown

from .appliance import LAN, RELAY, beyond, founded, page, switched_on
from .images import BOOTED, a_copy, image, scratch

AS_HOUSE_C = ("--name", "house-c", "--role", "gateway", "--site", "3")
OFFER = "to be claimed with"  # on the console
OFFERS = ("80", "51821")  # ports of the page and of who claims


def a_box_is_claimed_over_its_lan() -> None:
    """A box is found by others' multicast DNS and by ours, a wrong or broken-off try costs one of five, the sixth is refused, the WAN sees nothing; others' SPAKE2 and Noise pair with it, and `claim` makes it a member."""
    prepare()
    with Lab() as lab:
        story = Story(lab)
        story.tell(without={"gateway-a", "gateway-b"})
        box = Unclaimed(story)
        client = story.internet.a.client
        box.switch_on()
        code, fingerprint = box.code(), box.fingerprint()

        page = box.page()
        assert fingerprint in page and "altnet-provision claim" in page and "virt-arm64" in page and "min" in page, page
        assert code not in page and code.replace("-", "") not in page, "the page shows the code"
        assert code not in box.log() and box.etc.joinpath("claim").stat().st_mode & 0o777 == 0o600
        user = [line.split()[1] for line in subprocess.run(["ps", "-o", "pid=,uid=,args=", "-p", ",".join(map(str, box.place.processes()))], capture_output=True, text=True).stdout.splitlines() if "altnet-setup" in line and " run " in line]
        assert "65534" in user, f"the process with the sockets runs as {user}"

        # By python-zeroconf, which has both families there; by altnet-provision over link-local IPv6 alone.
        [found] = box.foreign(client, "browse", "4")
        print(found)
        assert found["fp"] == fingerprint and found["port"] == 51821 and found["board"] == "virt-arm64", found
        assert "192.168.1.1" in found["addresses"] and any(address.startswith("fe80:") for address in found["addresses"]), found
        listed = json.loads(box.owner.run("altnet-provision", "claim", "--list", "--json").stdout)["boxes"]
        print(listed)
        assert [one["fingerprint"] for one in listed] == [fingerprint] and listed[0]["address"].startswith("[fe80:"), listed

        unseen_from_the_wan(story, box)

        # Others' code pairs, and a right code costs nothing; files that are no good are refused, all of them.
        (client.folder / "hostname").write_text("house-z\n")
        (client.folder / "bad").write_text("Not A Name\n")
        assert box.tried(code, "hostname=bad", "release-keys=hostname") == ["hello", "paired", "not-taken", "not-taken"]
        assert not (box.etc / "hostname").exists()
        assert box.tried(code, "hostname=hostname") == ["hello", "paired", "taken", "all-taken"]
        assert (box.etc / "hostname").read_text() == "house-z\n" and box.tries() == ("open", 5)

        # Wrong ones, and one whose connection breaks before it is known.
        assert box.tried(other_code(code, 1)) == ["hello", "wrong-code"] and box.tries() == ("open", 4)
        assert box.tried(code, "--break-off") == ["hello", "broken-off"] and box.tries() == ("open", 3)
        before = invites(box)
        typo = box.claim(*AS_HOUSE_C, code=code[:-1] + ("0" if code[-1] != "0" else "1"), check=False)
        assert typo["error"]["code"] == "input" and box.tries() == ("open", 3), typo
        wrong = box.claim(*AS_HOUSE_C, code=other_code(code, 2), check=False)
        print(wrong["error"])
        assert wrong["error"]["code"] == "wrong_code" and "2 tries left" in wrong["error"]["next"], wrong
        for by in (3, 4):
            box.tried(other_code(code, by))
        assert box.tries() == ("tries-used", 0)
        assert box.tried(code) == ["hello"], "a sixth try"
        sixth = box.claim(*AS_HOUSE_C, code=code, check=False)
        print(sixth["error"])
        assert sixth["error"]["code"] == "claim" and "off and on" in sixth["error"]["next"], sixth
        assert "Switch it off and on" in box.page()
        assert invites(box) == before, "a box that wasn't claimed left an invite behind"

        # Ten minutes later it is closed; the power gives five more, and the same key and code.
        box.switch_on(minutes_ago=11)
        assert box.tries()[0] == "time-over" and "ten minutes" in box.page()
        box.switch_on()
        assert (box.code(), box.fingerprint()) == (code, fingerprint) and box.tries() == ("open", 5)
        other = "0000-" * 4 + "0000"
        refused = box.claim(*AS_HOUSE_C, "--fingerprint", other, code=code, check=False)
        assert refused["error"]["code"] == "not_found" and box.tries() == ("open", 5), refused
        done = box.claim(*AS_HOUSE_C, "--hostname", "house-c", "--fingerprint", fingerprint, code=code)
        print({key: done[key] for key in ("joined", "files", "box")})
        assert done["joined"] == "house-c" and sorted(done["files"]) == ["first-boot.bundle", "hostname"], done
        wait_for("the box to be a member", lambda: altnet(box.place, "status")["state"] == "member")
        assert box.running.wait(timeout=20) == 0, box.log()
        assert sorted(path.name for path in box.etc.iterdir()) == ["hostname"], "a member keeps what it was claimed by"
        assert ":51821" not in box.place._tool("ss", "-Hltn")
        box.owner.run("altnet-provision", "sync")
        members = json.loads(box.owner.run("altnet-provision", "members", "--json").stdout)["members"]
        assert "house-c" in {member["name"] for member in members}, members


def unseen_from_the_wan(story: Story, box: Unclaimed) -> None:
    """Nothing of it is there for the provider, also at the LAN's own address, though no firewall runs."""
    provider, wan = story.internet.a.isp, "100.64.1.2"
    provider.ip("route", "replace", "192.168.1.1/32", "via", wan)
    for host in (wan, "192.168.1.1"):
        for by, ports in (("tcp", ("80", "51821")), ("udp", ("5353",))):
            found = json.loads(provider.run(str(PYTHON), "-c", SCAN, by, host, *ports).stdout)
            assert "open" not in found.values(), f"{host} by {by}: {found}"
    provider.ip("route", "del", "192.168.1.1/32")
    seen = box.foreign(provider, "browse", "2")
    assert seen == [], f"the provider finds {seen}"


def invites(box: Unclaimed) -> list:
    """The invites that the owner's computer knows."""
    return json.loads(box.owner.run("altnet-provision", "invite", "list", "--json").stdout)["invites"]


def a_booted_image_is_claimed_over_its_lan() -> None:
    """A box from an image that was given nothing shows its code on its console alone. Its owner's computer behind it finds it, a wrong code costs a try, and the right one makes it a member, also after a power cut, that offers itself no more."""
    appliances.need()
    board, kind = BOOTED[0]
    with scratch() as folder, Lab() as lab, Appliance(lab, Provider(lab), kind, a_copy(image(board), folder, "disk.img")) as box:
        switched_on(box)
        code, fingerprint = shown(box.machine.once(OFFER))
        owner = box.client
        box.lease()
        said = wait_for("the page", lambda: page(owner, f"http://{LAN}/", "4"), 30, every_s=1)
        assert fingerprint in said and board in said and code not in said and code.replace("-", "") not in said, said
        assert set(open_to(owner).values()) == {"open"}, open_to(owner)
        [outside] = box.outside(4)
        box.provider.place.ip("route", "add", f"{LAN}/32", "via", outside)
        for host in (outside, LAN):
            found = box.provider.scan(host, *map(int, OFFERS))
            assert set(found.values()) == {"silent"}, f"from the line {host} says {found}"

        founded(owner, beyond(box.provider, "relay", RELAY))
        listed = json.loads(owner.run("altnet-provision", "claim", "--list", "--json").stdout)["boxes"]
        print(listed)
        assert [one["fingerprint"] for one in listed] == [fingerprint], listed
        wrong = claim(owner, other_code(code, 1), *AS_HOUSE_C)["error"]
        print(wrong)
        assert wrong["code"] == "wrong_code" and "4 tries left" in wrong["next"], wrong
        done = claim(owner, code, *AS_HOUSE_C, "--hostname", "house-c", "--fingerprint", fingerprint, "--wait", "2m")
        assert done.get("joined") == "house-c" and sorted(done["files"]) == ["first-boot.bundle", "hostname"], done
        is_member_alone(box)
        owner.run("altnet-provision", "sync")
        members = json.loads(owner.run("altnet-provision", "members", "--json").stdout)["members"]
        assert "house-c" in {member["name"] for member in members}, members

        box.machine.ask("sync")
        box.cut_power()
        switched_on(box)
        is_member_alone(box)
        assert not any(OFFER in line for line in box.machine.lines), "a member offers itself"
        assert box.machine.ask("hostname") == ["house-c"]


def open_to(owner: Place) -> dict[str, str]:
    """How the ports by which a box offers itself answer its owner's computer."""
    return json.loads(owner.run(OURS, "-c", SCAN, "tcp", LAN, *OFFERS).stdout)


def is_member_alone(box: Appliance) -> None:
    """Holds a booted box to be a member that keeps nothing of what it was claimed by, and offers nothing to its LAN any more."""
    wait_for("the box to be a member", lambda: json.loads(" ".join(box.machine.ask("altnet status --json")))["state"] == "member", box.patience_s, every_s=1)
    kept = wait_for("the box to forget what it was claimed by", lambda: without(box, "claim", "claim-code", "first-boot.bundle"), 60, every_s=1)
    assert {"altnet.toml", "hostname"} <= kept, kept
    wait_for("the box to offer nothing", lambda: "open" not in open_to(box.client).values(), 60, every_s=1)


def without(box: Appliance, *names: str) -> set[str] | None:
    """The files of a box's owner, if none of these is among them."""
    found = set(box.machine.ask("ls -1 /data/etc"))
    return None if found & set(names) else found


SCENARIOS = [a_box_is_claimed_over_its_lan]
LONG = [a_booted_image_is_claimed_over_its_lan]
