"""What an image is made of, as SPDX 2.3 in JSON: Debian's packages as they were taken, and the crates of our programs."""

import datetime
import hashlib
import json
import pathlib
import subprocess
import urllib.parse

from .boards import Board, BuildError
from .packages import Package

# Our programs' packages of cargo's, where they are in the workspace.
CRATES = ("altnet-daemon", "altnet-tls", "altnet-router", "altnet-updater", "altnet-setup", "altnet-rescue")


def crates(repository: pathlib.Path, target: str) -> list[tuple[str, str]]:
    """Name and version of every crate that is linked into our programs for a target."""
    there = [name for name in CRATES if (repository / "firmware" / name / "Cargo.toml").exists()]
    packages = [word for name in there for word in ("-p", name)]
    done = subprocess.run(
        ["cargo", "tree", "--locked", "--edges", "normal", "--target", target, "--prefix", "none", "--no-dedupe", "--format", "{p}", *packages],
        cwd=repository, capture_output=True, text=True,
    )
    if done.returncode:
        raise BuildError(f"cargo tree: {done.stderr.strip()[-400:]}")
    words = {tuple(line.split()[:2]) for line in done.stdout.splitlines() if line.strip()}
    return sorted((name, version.removeprefix("v")) for name, version in words)


def document(board: Board, version: str, epoch: int, image: pathlib.Path, packages: list[Package], crates: list[tuple[str, str]]) -> str:
    """The SBOM's text."""
    entries = [{
        "SPDXID": "SPDXRef-image", "name": image.name, "versionInfo": version, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "primaryPackagePurpose": "FIRMWARE", "checksums": [{"algorithm": "SHA256", "checksumValue": hashlib.sha256(image.read_bytes()).hexdigest()}],
    }]
    for package in sorted(packages):
        purl = f"pkg:deb/debian/{package.name}@{urllib.parse.quote(package.version, safe='')}?arch={package.architecture}"
        entries.append(_entry(f"deb-{package.name}", package.name, package.version, purl, package.sha256))
    for name, number in crates:
        entries.append(_entry(f"crate-{name}-{number}", name, number, f"pkg:cargo/{name}@{number}"))
    body = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"altnet-{board.name}-{version}",
        "creationInfo": {
            "created": datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: altnet-linux-image"],
        },
        "packages": entries,
        "relationships": [_relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
        + [_relation("SPDXRef-image", "CONTAINS", entry["SPDXID"]) for entry in entries[1:]],
    }
    # A namespace is unique for its contents; ours is its contents' hash.
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "documentNamespace": f"urn:altnet:sbom:{digest}"}, indent=1, sort_keys=True) + "\n"


def _entry(ref: str, name: str, version: str, purl: str, sha256: str = "") -> dict:
    safe = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in ref)
    entry = {
        "SPDXID": f"SPDXRef-{safe}", "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }
    if sha256:
        entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256}]
    return entry


def _relation(of: str, kind: str, to: str) -> dict:
    return {"spdxElementId": of, "relationshipType": kind, "relatedSpdxElement": to}
