"""What is in the packages, byte by byte."""

import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import apk
import ipk
import package
import readers
from readers import Entry, Wrong

EPOCH = 1_790_000_000


def listing(entries: dict[str, Entry]) -> str:
    lines = [f"{e.kind:<5}{e.mode:04o} {e.owner} {name.rstrip('/')}{' -> ' + e.target if e.target else ''}\n" for name, e in entries.items()]
    return "".join(sorted(lines, key=lambda line: line.split()[3]))


def expect(name: str, found: str, record: bool) -> None:
    """It is what is committed; with `record` it becomes that."""
    path = HERE / "expected" / name
    if record:
        path.write_text(found)
    expected = path.read_text()
    if found != expected:
        diff = subprocess.run(["diff", "-u", path, "-"], input=found, text=True, capture_output=True).stdout
        raise Wrong(f"{name} is another one; if that is meant, run ci/openwrt --record\n{diff}")


def both_hold_what_they_should(record: bool) -> None:
    program = b"\x7fELF" + bytes(range(256)) * 300
    made = package.make("mipsel_24kc", "0.1.0-r1", EPOCH, program)
    old, new = readers.ipk(ipk.build(made)), readers.apk(apk.build(made))
    expect("ipk.txt", listing(old.data) + listing(old.control), record)
    expect("apk.txt", listing(new.data) + "".join(f"script {name}\n" for name in new.scripts), record)
    size = f"Installed-Size: {sum(len(e.data) for e in old.data.values())}\n"
    control = old.control["./control"].data.decode()
    readers.check(size in control, "its size in the .ipk")
    expect("control.txt", control.replace(size, ""), record)
    expect("apk-scripts.txt", "".join(f"== {name}\n{text}" for name, text in new.scripts.items()), record)
    old_scripts = {name: e.data.decode() for name, e in old.control.items() if (e.kind, e.mode) == ("file", 0o755)}
    expect("ipk-scripts.txt", "".join(f"== {name}\n{text}" for name, text in old_scripts.items()), record)
    for entries in (old.data, new.data):
        readers.check(entries["./usr/bin/altnet-box"].data == program, "the program")
        for path in (HERE.parent / "files").rglob("*"):
            if path.is_file():
                name = f"./{path.relative_to(HERE.parent / 'files')}"
                readers.check(entries[name].data == path.read_bytes(), name)
        readers.check(all(e.mtime in (EPOCH, None) for e in entries.values()), "the time of a file")
    info = new.package["info"]
    readers.check((info["arch"], info["version"]) == (b"mipsel_24kc", b"0.1.0-r1"), "what the .apk says of itself")
    readers.check(info["depends"] == [{"name": b"kmod-tun"}], "what it needs")
    readers.check(info["installed-size"] == sum(len(e.data) for e in new.data.values()), "its size")
    listed = new.data["./lib/apk/packages/altnet.list"].data.decode().split()
    there = sorted(name[1:] for name, e in new.data.items() if e.kind != "dir" and not name.startswith("./lib/apk/"))
    readers.check(listed == there, "altnet.list")
    readers.check(new.data["./lib/apk/packages/altnet.conffiles"].data == b"/etc/config/altnet\n", "altnet.conffiles")


def the_same_gives_the_same_bytes(_: bool) -> None:
    made = [package.make("x86_64", "0.1.0-r1", EPOCH, b"program") for _ in range(2)]
    readers.check(ipk.build(made[0]) == ipk.build(made[1]), "an .ipk differs from itself")
    readers.check(apk.build(made[0]) == apk.build(made[1]), "an .apk differs from itself")
    later = package.make("x86_64", "0.1.0-r1", EPOCH + 1, b"program")
    readers.check(apk.build(later) != apk.build(made[0]), "the time makes no difference")


def an_apk_is_what_apk_tools_writes(_: bool) -> None:
    """`apk mkpkg` of apk-tools 3.0.6 was given this package; see recorded/README."""
    readers.check(apk.build(sample(), is_compressed=False) == (HERE / "recorded/mkpkg.apk").read_bytes(), "another file than apk-tools writes")


class Sample(package.Package):
    def apk_scripts(self) -> dict[str, str]:
        return {"post-install": "#!/bin/sh\n" + "# a\n" * 100, "pre-deinstall": "#!/bin/sh\n", "post-upgrade": "#!/bin/sh\n"}


def sample() -> package.Package:
    """Strings of all widths, a file that is empty and one that isn't, a link, and folders with nothing of their own."""
    entries = (
        package.File("usr/share/altnet/long", bytes(range(256)) * 3),
        package.File("usr/share/altnet/empty", b"", 0o600),
        package.File("usr/bin/altnet-box", b"program", 0o755),
        package.Link("usr/bin/altnet", "altnet-box"),
        package.File("etc/config/altnet", b"config altnet\n"),
    )
    return Sample("x86_64", "1.2.3-r4", EPOCH, entries, description="d" * 300, depends=("kmod-tun", "ca-bundle"))


def a_signature_is_of_its_key_and_its_package(_: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = [pathlib.Path(folder) / name for name in ("one.pem", "two.pem")]
        for key in keys:
            subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True, capture_output=True)
            subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", key.with_suffix(".pub")], check=True, capture_output=True)
        made = package.make("x86_64", "0.1.0-r1", EPOCH, b"program")
        signed = readers.apk(apk.build(made, keys[0]))
        readers.check_signature(signed, keys[0].with_suffix(".pub"))
        readers.check(signed.body == readers.apk(apk.build(made)).body, "signing changes the package")
        refuses(lambda: readers.check_signature(signed, keys[1].with_suffix(".pub")))
        other = readers.apk(apk.build(package.make("x86_64", "0.1.0-r2", EPOCH, b"program")))
        other.signatures = signed.signatures
        refuses(lambda: readers.check_signature(other, keys[0].with_suffix(".pub")))
        rsa = pathlib.Path(folder) / "rsa.pem"
        subprocess.run(["openssl", "genrsa", "-out", rsa, "2048"], check=True, capture_output=True)
        try:
            apk.build(made, rsa)
        except ValueError as error:
            readers.check("no EC key on P-256" in str(error), f"an RSA key is refused by {error}")
        else:
            raise Wrong("an RSA key signs")


def readers_notice_a_changed_byte(_: bool) -> None:
    """Or what they say of a package means nothing. Of an .apk every byte is under a hash or a rule."""
    made = sample()
    chance = random.Random(1)
    data = apk.build(made, is_compressed=False)
    for at in [*range(0, 64), *chance.sample(range(64, len(data)), 300)]:
        refuses(lambda: readers.apk(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]))
        refuses(lambda: readers.apk(data[:at]))
    data = ipk.build(made)
    for at in chance.sample(range(len(data)), 300):
        refuses(lambda: readers.ipk(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]))


def refuses(attempt) -> None:
    try:
        attempt()
    except (Wrong, readers.zlib.error, readers.struct.error, KeyError, UnicodeDecodeError, ValueError, OverflowError):
        return
    raise Wrong("something wrong was not noticed")


CHECKS = [
    both_hold_what_they_should,
    the_same_gives_the_same_bytes,
    an_apk_is_what_apk_tools_writes,
    a_signature_is_of_its_key_and_its_package,
    readers_notice_a_changed_byte,
]
