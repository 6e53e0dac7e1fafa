"""Runs every check of the OpenWrt packages; called by ci/openwrt.

    run.py --host BOX --provision PROGRAM --dropbear FOLDER --qemu FOLDER --out FOLDER [--json] [--record] TARGET=BOX...
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import installs
import layout
import package
import readers
import scripts

# How qemu calls the processors, and which of them routers have. An Atheros 24Kc has no floating point.
QEMU = {
    "aarch64": ("qemu-aarch64-static", []),
    "armv7": ("qemu-arm-static", ["-cpu", "cortex-a7"]),
    "mipsel": ("qemu-mipsel-static", ["-cpu", "24Kc"]),
    "x86_64": ("qemu-x86_64-static", []),
}
# What may be there of a flash of 16 MB beside OpenWrt, which takes 7 to 10: opkg and apk write the program
# compressed by squashfs or jffs2, about as large as the package.
MOST_BYTES = 4_000_000
HOST = "x86_64-unknown-linux-musl"  # as which the host's own program is packaged; only its layout is judged


def called(folder: str, box: pathlib.Path, name: str) -> pathlib.Path:
    link = pathlib.Path(folder) / name
    link.symlink_to(box.resolve())
    return link


def packages(target: str, box: pathlib.Path, out: pathlib.Path) -> list[dict]:
    """Builds a target's packages with a key of their own and reads them back."""
    with tempfile.TemporaryDirectory() as folder:
        key, public = (pathlib.Path(folder) / name for name in ("key.pem", "key.pub"))
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
        build = [HERE.parent / "build", "--json", "--arch", "all", "--out", out, "--key", key, target, box]
        rows = json.loads(subprocess.run(build, check=True, capture_output=True).stdout)
        for row in rows:
            data = (out / row["file"]).read_bytes()
            if row["file"].endswith(".apk"):
                found = readers.apk(data)
                readers.check_signature(found, public)
                arch, entries = found.package["info"]["arch"].decode(), found.data
            else:
                found = readers.ipk(data)
                arch, entries = found.fields()["Architecture"], found.data
            readers.check(arch == row["arch"], f"{row['file']} is for {arch}")
            readers.check(entries["./usr/bin/altnet-box"].data == box.read_bytes(), f"the program in {row['file']}")
    readers.check({row["arch"] for row in rows} == set(package.ARCHES[target]), "the architectures")
    return rows


def selftest(target: str, box: pathlib.Path, qemu: pathlib.Path) -> dict:
    """`altnet selftest` on the target's processor."""
    with tempfile.TemporaryDirectory() as folder:
        command: list = [called(folder, box, "altnet"), "--json", "selftest", "--dir", folder]
        if target != "host":
            program, arguments = QEMU[target.split("-")[0]]
            # qemu goes by the file's own name, the program by what it is called.
            command = [qemu / program, *arguments, "-0", "altnet", box, *command[1:]]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        readers.check(done.returncode == 0, f"altnet selftest on {target}: {done.stderr}{done.stdout}")
        report = json.loads(done.stdout)
        readers.check(report["failed"] == 0 and report["passed"] >= 10, f"altnet selftest on {target}: {report}")
        return {"passed": report["passed"], "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=pathlib.Path, required=True)
    parser.add_argument("--provision", type=pathlib.Path, required=True)
    parser.add_argument("--dropbear", type=pathlib.Path, required=True)
    parser.add_argument("--qemu", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    installs.PROVISION, installs.DROPBEAR = given.provision, given.dropbear
    failed, results = [], {"checks": {}, "targets": {}}

    def attempt(name: str, what) -> object:
        try:
            found = what()
        except Exception as error:
            failed.append(name)
            print(f"FAILED  {name}: {error}", file=sys.stderr)
            if not isinstance(error, readers.Wrong):
                traceback.print_exc()
            found = None
        else:
            print(f"ok      {name}", file=sys.stderr)
        results["checks"][name] = name not in failed
        return found

    with tempfile.TemporaryDirectory() as folder:
        altnet = called(folder, given.host, "altnet")
        for check in layout.CHECKS:
            attempt(check.__name__, lambda: check(given.record))
        for check in scripts.CHECKS + installs.CHECKS:
            attempt(check.__name__, lambda: check(altnet, given.record))
    for word in given.targets:
        target, box = word.split("=", 1)
        box = pathlib.Path(box)
        rows = attempt(f"packages of {target}", lambda: packages(HOST if target == "host" else target, box, given.out))
        test = attempt(f"selftest on {target}", lambda: selftest(target, box, given.qemu))
        about = results["targets"][target] = {"program_bytes": box.stat().st_size, "selftest": test, "packages": rows}
        if target != "host" and rows:
            largest = max(row["bytes"] for row in rows)
            attempt(f"{target} fits 16 MB of flash", lambda: readers.check(largest <= MOST_BYTES, f"{largest} bytes"))
        for row in rows or []:
            print(f"        {row['file']:<52} {row['bytes']:>8} bytes", file=sys.stderr)
        print(f"        program {about['program_bytes']} bytes", file=sys.stderr)
    if given.json:
        print(json.dumps({"failed": failed, **results}, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
