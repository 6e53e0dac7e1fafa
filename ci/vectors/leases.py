#!/usr/bin/env python3
"""The images' script that keeps what dhcpcd got: flash is written when addresses are others, and not when a lease was renewed."""

import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "linux-image/root/etc/init.d/leases"
# A message as dhcpcd writes it: what of it is other, and whether that is kept. Offsets: RFC 2131 section 2, RFC 8415 section 8.
CASES = [
    ("eth0.lease", 4, False), ("eth0.lease", 8, False), ("eth0.lease", 16, True), ("eth0.lease", 19, True), ("eth0.lease", 240, False),
    ("eth0.lease6", 1, False), ("eth0.lease6", 3, False), ("eth0.lease6", 4, True), ("eth0.lease6", 100, True),
    ("duid", 0, True),
]


def main() -> None:
    for name, at, expected in CASES:
        with tempfile.TemporaryDirectory() as folder:
            run, kept = pathlib.Path(folder, "run"), pathlib.Path(folder, "kept")
            (run / "dhcpcd").mkdir(parents=True)
            kept.mkdir()
            (run / "data").write_text("writable\n")
            now = bytearray(os.urandom(300))
            (run / "dhcpcd" / name).write_bytes(now)
            keep(run, kept)
            assert (kept / name).read_bytes() == now, f"{name} is not kept at first"
            assert (kept / name).stat().st_mode & 0o777 == 0o600, f"others can read {name}"
            before = (kept / name).stat()
            now[at] ^= 1
            (run / "dhcpcd" / name).write_bytes(now)
            keep(run, kept)
            was_written = (kept / name).stat().st_ino != before.st_ino
            assert was_written == expected, f"{name} with another byte {at}: {'written' if was_written else 'not written'}"
            assert not expected or (kept / name).read_bytes() == now, f"{name} was not written whole"

            # What is empty is being written; what can't be written is let be.
            (run / "dhcpcd" / name).write_bytes(b"")
            keep(run, kept)
            (run / "data").write_text("read-only\n")
            (run / "dhcpcd" / name).write_bytes(os.urandom(300))
            last = (kept / name).read_bytes()
            keep(run, kept)
            assert (kept / name).read_bytes() == last and [path.name for path in kept.iterdir()] == [name], list(kept.iterdir())
    print(f"leases: {len(CASES)} cases")


def keep(run: pathlib.Path, kept: pathlib.Path) -> None:
    """Has the script look once."""
    subprocess.run(["sh", SCRIPT, "once"], check=True, env={**os.environ, "RUN": str(run), "KEPT": str(kept)})


if __name__ == "__main__":
    main()
