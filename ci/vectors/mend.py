#!/usr/bin/env python3
"""The images' script that mends the data after a power cut: as the builder makes that file system, and made larger, with its superblock torn at each sector."""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "linux-image/root/usr/sbin/altnet-mend"
SECTOR, BLOCK = 512, 4096
SIZES = (64 << 20, 200 << 20)

sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "linux-image"))
from image import disk  # noqa: E402


def main() -> None:
    opened = 0
    with tempfile.TemporaryDirectory() as folder:
        data, kept = pathlib.Path(folder, "data"), pathlib.Path(folder, "kept")
        kept.write_bytes(b"an identity" * 1000)
        disk.ext4(data, disk.DATA_SIZE, "test", 0)
        tool("debugfs", "-w", "-R", f"write {kept} identity", data)
        for size in SIZES:
            os.truncate(data, size)
            tool("e2fsck", "-fp", data)
            tool("resize2fs", data)
            whole = data.read_bytes()
            # What a mount writes there: the same with other counts and times, and another checksum.
            tool("tune2fs", "-C", "7", "-T", "20260101", data)
            after = data.read_bytes()[:BLOCK]
            assert after != whole[:BLOCK]
            for sectors in range(BLOCK // SECTOR + 1):
                data.write_bytes(after[: sectors * SECTOR] + whole[sectors * SECTOR :])
                opened += subprocess.run(["dumpe2fs", "-h", data], capture_output=True, env=environment()).returncode == 0
                mended = subprocess.run(["sh", SCRIPT, data], capture_output=True, text=True, env=environment())
                assert mended.returncode < 4, f"{sectors} sectors of a superblock: {mended.stdout}{mended.stderr}"
                tool("e2fsck", "-fn", data)
                assert tool("debugfs", "-R", "cat identity", data) == kept.read_bytes(), f"{sectors} sectors of a superblock: the file is another"
            data.write_bytes(whole)
        # Else nothing was mended.
        cases = len(SIZES) * (BLOCK // SECTOR + 1)
        assert opened < cases, "no superblock was damaged"
    print(f"mend: {cases} superblocks, {cases - opened} of which nothing opens")


def environment() -> dict[str, str]:
    """Where e2fsprogs are."""
    return {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"}


def tool(*command: str | pathlib.Path) -> bytes:
    """What one of e2fsprogs says."""
    done = subprocess.run([str(word) for word in command], capture_output=True, env=environment())
    assert not done.returncode, f"{command[0]}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout


if __name__ == "__main__":
    main()
