"""A box's first boot, from an image that was customized for it."""

import json
import os
import pathlib
import secrets
import subprocess

from lab.altnet import BINARIES, build_binaries
from lab.machines import Machine, need
from lab.places import LabError

from .images import BOOTED, boots, disk, image, scratch

CONFIG = '[router]\n\n[[router.network]]\nname = "lan"\nipv4 = "192.168.99.1/24"\n'
SIZE = 1 << 30


def a_box_takes_its_files_at_its_first_boot() -> None:
    """Images customized with a bundle, a name and a config for a disk of 1 GiB: before its services start the box has them, its data fill the disk, nothing stays behind them, and a bundle that nobody answers is kept and tried."""
    need()
    build_binaries()
    with scratch() as folder:
        for name, text in (("altnet.toml", CONFIG), ("passphrase", secrets.token_urlsafe(16))):
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        provision(folder, "network", "create", "home")
        provision(folder, "bundle", "--name", "relay1", "--role", "relay", "--role", "directory", "--admit", "--endpoint", "203.0.113.1:51820", "-o", "relay1.bundle")
        provision(folder, "bundle", "--name", "house-a", "--role", "gateway", "--site", "1", "-o", "house-a.bundle")
        for board, kind in BOOTED[:2]:
            whole = folder / f"{kind}.img"
            said = provision(
                folder, "image", "customize", f"{image(board)}.zst", "--bundle", "house-a.bundle", "--config", "altnet.toml", "--hostname", "house-a",
                "--size", "1G", "-o", str(whole),
            )
            assert said["first_boot"] == ["hostname", "altnet.toml", "first-boot.bundle"], said
            assert "BEGIN ALTNET BUNDLE" in behind_the_data(whole, said)
            with Machine(kind, whole, folder / f"{kind}.log") as machine:
                boots(machine, "A")
                taken = [line.split("altnet: ")[1].split(" at ")[0] for line in machine.lines if "is taken" in line or "isn't taken" in line]
                assert taken == ["hostname is taken", "altnet.toml is taken", "first-boot.bundle is taken"], taken
                machine.open_shell()
                assert machine.ask("hostname") == ["house-a"]
                # The router carries it out some time after altnetd answers.
                in_force = "ip -4 -o address show | grep -c 192.168.99.1"
                machine.ask(f"for n in $(seq 60); do ! {in_force} >/dev/null || break; sleep 1; done", timeout_s=180)
                assert machine.ask(in_force) == ["1"], "the config isn't in force"
                modes = machine.ask("stat -c '%a %n' /data/etc/altnet.toml /data/etc/first-boot.bundle")
                assert modes == ["600 /data/etc/altnet.toml", "600 /data/etc/first-boot.bundle"], modes
                kilobytes = int(machine.ask("df -k /data | tail -n 1 | tr -s ' ' | cut -d' ' -f2")[0])
                assert kilobytes > 0.9 * said["data_bytes"] / 1024, f"the data have {kilobytes} KiB of {said['data_bytes']} bytes"
                machine.once("hasn't joined yet", timeout_s=300)
            assert not behind_the_data(whole, said), "the files are still behind the data"
            # Pulling the plug is what ended it: the second boot has nothing to take, and goes on trying to join.
            with Machine(kind, whole, folder / f"{kind}.log") as machine:
                boots(machine, "A")
                assert not any("is taken" in line for line in machine.lines), machine.lines
                machine.open_shell()
                assert machine.ask("hostname; ls /data/etc/first-boot.bundle") == ["house-a", "/data/etc/first-boot.bundle"]
            print(f"{kind}: took its files once, its data have {kilobytes // 1024} MiB")


def provision(folder: pathlib.Path, *words: str) -> dict:
    """What altnet-provision says, with a network of its own in `folder`."""
    environment = {**os.environ, "ALTNET_HOME": str(folder / "networks"), "ALTNET_TEST_SCRYPT_LOG_N": "2"}
    done = subprocess.run(
        [BINARIES / "altnet-provision", *words, "--json", "--offline", "--passphrase-file", "passphrase"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )
    if done.returncode:
        raise LabError(f"altnet-provision {' '.join(words[:2])}: {done.stdout.strip()[-600:]}{done.stderr.strip()[-600:]}")
    return json.loads(done.stdout)


def behind_the_data(whole: pathlib.Path, said: dict) -> str:
    """What lies there on a disk, without zeros."""
    _, at, _ = disk.partitions()[-1]
    with open(whole, "rb") as file:
        file.seek(at + said["data_bytes"])
        return file.read(512 << 10).replace(b"\0", b"").decode(errors="replace")


LONG = [a_box_takes_its_files_at_its_first_boot]
SCENARIOS = []
