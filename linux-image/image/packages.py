"""Debian's packages: which versions, where from, and held against `packages.lock`.

apt fetches and checks signatures, in a tree of its own for each architecture, which ci/image makes. A line of the lock is architecture, name,
version and SHA-256 of the package. The mirror drops a version when a security update replaces it, so a locked version
that is gone is no reason to build nothing: the newer one is taken, said aloud, and the SBOM has what was taken.
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
from dataclasses import dataclass

from .boards import BuildError

LOCK = pathlib.Path(__file__).resolve().parents[1] / "packages.lock"


@dataclass(frozen=True, order=True)
class Package:
    """One version of one package."""

    architecture: str
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.architecture} {self.name} {self.version} {self.sha256}"


def locked(architecture: str) -> dict[str, Package]:
    """What the lock says for an architecture, by name."""
    lines = [line.split() for line in LOCK.read_text().splitlines() if line and line[0] != "#"] if LOCK.exists() else []
    return {words[1]: Package(*words) for words in lines if words[0] == architecture}


def write_lock(packages: set[Package]) -> None:
    """Replaces the lock."""
    head = "# What the images are made of: architecture, package, version, SHA-256. Written by `ci/image --renew`.\n"
    LOCK.write_text(head + "".join(f"{package}\n" for package in sorted(packages)))


class Store:
    """Packages of one architecture, fetched and unpacked below a folder as they are asked for."""

    def __init__(self, architecture: str, apt: str, cache: pathlib.Path, lock: dict[str, Package]):
        self.architecture, self.folder, self.lock = architecture, cache / architecture, lock
        self._apt = {**os.environ, "APT_CONFIG": f"{apt}{architecture}/conf"}
        self._chosen: dict[str, Package] = {}
        self.used: dict[str, Package] = {}
        self.notes: list[str] = []  # what isn't as the lock has it
        self._unpacked: dict[str, pathlib.Path] = {}
        self._depends: dict[str, list[str]] = {}
        self._libraries: dict[str, dict[str, pathlib.Path]] = {}

    def folder_of(self, name: str) -> pathlib.Path:
        """Where a package lies unpacked."""
        if name not in self._unpacked:
            package, depends = self._choose(name)
            folder = self._unpacked[name] = self._unpack(package)
            self._libraries[name] = {path.name: path for path in sorted(folder.rglob("*.so*")) if path.is_file()}
            self._depends[name] = depends
        return self._unpacked[name]

    def use(self, name: str) -> pathlib.Path:
        """The same, and notes that something of it is in the image."""
        folder = self.folder_of(name)
        if name not in self.used and self.lock and name not in self.lock:
            self._note(f"{name} {self._chosen[name].version} is not in packages.lock")
        self.used[name] = self._chosen[name]
        return folder

    def library(self, soname: str, of: str) -> tuple[str, pathlib.Path]:
        """The package and file of a library that something of the package `of` wants: in it, or in what it depends on."""
        for known in ([True] if self.lock else []) + [False]:  # the locked ones first: most need no others
            seen, queue = set(), [of]
            while queue:
                name = queue.pop(0)
                if name in seen or (known and name not in self.lock):
                    continue
                seen.add(name)
                self.folder_of(name)
                if soname in self._libraries[name]:
                    return name, self._libraries[name][soname]
                queue += self._depends[name]
        raise BuildError(f"no package that {of} depends on has {soname}")

    def newest_kernel(self, meta: str) -> str:
        """The kernel's own package, of which `meta` is the newest one's name; the locked one as long as it is to be had."""
        pattern = re.compile(re.escape(meta).replace("linux\\-image\\-", r"linux\-image\-\d[\d.]*-\d+\-"))
        wished = next((name for name in self.lock if pattern.fullmatch(name)), None)
        if wished and self._cached(self.lock[wished]):
            return wished
        known = self._show(meta)
        if not known:
            raise BuildError(f"the mirror has no package {meta}")
        newest = next(word for word in _depends(known[0]["Depends"]) if pattern.fullmatch(word))
        if wished and wished != newest:
            if self._show(wished):
                return wished
            self._note(f"{wished} is gone from the mirror: {newest} instead")
        return newest

    def _show(self, name: str) -> list[dict[str, str]]:
        """What apt's index says of a package, the candidate first; nothing if it doesn't know it."""
        done = subprocess.run(["apt-cache", "show", name], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=self._apt)
        return [_fields(stanza) for stanza in done.stdout.split("\n\n") if stanza.strip()]

    def _note(self, text: str) -> None:
        self.notes.append(text)
        print(f"note: {text}; `ci/image --renew` takes it into packages.lock", file=sys.stderr)

    def _choose(self, name: str) -> tuple[Package, list[str]]:
        """The locked version, or the newest if that is gone; and the libraries it depends on."""
        wished = self.lock.get(name)
        cached = self._cached(wished) if wished else None
        if cached:
            fields = _control(cached)
        else:
            known = self._show(name)
            if not known:
                raise BuildError(f"the mirror has no package {name} for {self.architecture}")
            fields = next((one for one in known if wished and one["Version"] == wished.version), known[0])
            if wished and fields["Version"] == wished.version and fields["SHA256"] != wished.sha256:
                raise BuildError(f"{name} {wished.version} is not what packages.lock has: expected SHA-256 {wished.sha256}, the mirror has {fields['SHA256']}")
            if wished and fields["Version"] != wished.version:
                self._note(f"{name} {wished.version} is gone from the mirror: {fields['Version']} instead")
            wished = Package(self.architecture, name, fields["Version"], fields["SHA256"])
        self._chosen[name] = wished
        wanted = _depends(fields.get("Pre-Depends", "")) + _depends(fields.get("Depends", ""))
        return wished, [word for word in wanted if re.match(r"lib(?!pam-)", word)]

    def _deb(self, package: Package) -> pathlib.Path:
        return self.folder / "debs" / f"{package.name}-{package.sha256[:16]}.deb"

    def _cached(self, package: Package) -> pathlib.Path | None:
        path = self._deb(package)
        return path if path.exists() else None

    def _unpack(self, package: Package) -> pathlib.Path:
        deb, into = self._deb(package), self.folder / "unpacked" / f"{package.name}-{package.sha256[:16]}"
        if not deb.exists():
            landing = self.folder / "landing"
            landing.mkdir(parents=True, exist_ok=True)
            deb.parent.mkdir(parents=True, exist_ok=True)
            for old in landing.glob("*.deb"):
                old.unlink()
            _run("apt-get", "-qq", "download", f"{package.name}={package.version}", cwd=landing, environment=self._apt)
            fetched = next(landing.glob("*.deb"))
            found = hashlib.sha256(fetched.read_bytes()).hexdigest()
            if found != package.sha256:
                raise BuildError(f"{package.name} {package.version} came with SHA-256 {found}, expected {package.sha256}")
            fetched.rename(deb)
        if not into.exists():
            partial = into.with_suffix(".partial")
            _run("rm", "-rf", str(partial))
            partial.parent.mkdir(parents=True, exist_ok=True)
            _run("dpkg-deb", "-x", str(deb), str(partial))
            partial.rename(into)
        return into


def _run(*command: str, cwd: pathlib.Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _control(deb: pathlib.Path) -> dict[str, str]:
    return _fields(_run("dpkg-deb", "-f", str(deb)))


def _fields(stanza: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[\w-]+: ", line))


def _depends(field: str) -> list[str]:
    """Names in a field of relations; of alternatives the first."""
    return [match.group() for one in field.split(",") if (match := re.match(r"[a-z0-9][a-z0-9.+-]+", one.strip()))]
