"""What the OpenWrt package of altnet holds, whatever file it is put into."""

import hashlib
import os
import pathlib
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = "usr/bin/altnet-box"
# What the program is called as, each with a way to it from where it is.
LINKS = {"usr/bin/altnet": "altnet-box", "usr/bin/altnet-tls": "altnet-box", "usr/sbin/altnetd": "../bin/altnet-box"}
CONFFILES = ["/etc/config/altnet"]
# Files that others on the device may not read: a password may be written there.
PRIVATE = {"etc/config/altnet"}

# What OpenWrt calls the processors that a target's program runs on; the first is the usual one.
ARCHES = {
    "aarch64-unknown-linux-musl": ["aarch64_generic", "aarch64_cortex-a53", "aarch64_cortex-a72", "aarch64_cortex-a76"],
    "armv7-unknown-linux-musleabihf": [
        "arm_cortex-a7_neon-vfpv4", "arm_cortex-a7_vfpv4", "arm_cortex-a8_vfpv3", "arm_cortex-a9_neon",
        "arm_cortex-a9_vfpv3-d16", "arm_cortex-a15_neon-vfpv4",
    ],
    "mipsel-unknown-linux-musl": ["mipsel_24kc", "mipsel_74kc"],
    "x86_64-unknown-linux-musl": ["x86_64"],
}

# As OpenWrt's own packages begin and end (include/package-pack.mk): what its functions do for a package with an
# init script and uci-defaults.
FUNCTIONS = '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0\n. "${IPKG_INSTROOT}/lib/functions.sh"\n'
NO_SCRIPT = '[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0\n'
# Networks and firewall read what uci-defaults wrote; in an image that is being made they aren't there.
AFTER_INSTALL = '[ -n "${IPKG_INSTROOT}" ] || {\n\t. /usr/share/altnet/openwrt.sh\n\taltnet_apply\n}\n'
BEFORE_REMOVAL = '[ -n "${IPKG_INSTROOT}" ] || [ "${PKG_UPGRADE}" = 1 ] || {\n\t. /usr/share/altnet/openwrt.sh\n\taltnet_take_down\n}\n'


@dataclass(frozen=True)
class File:
    path: str
    data: bytes
    mode: int = 0o644

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Link:
    path: str
    target: str

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Package:
    """The package for one architecture. `epoch` is the time of all its files, in seconds since 1970."""

    arch: str
    version: str
    epoch: int
    entries: tuple[File | Link, ...]
    name: str = "altnet"
    description: str = "The private network of your houses: a gateway, names and tunnels."
    license: str = "MIT OR Apache-2.0"
    maintainer: str = "The altnet authors"
    depends: tuple[str, ...] = ("kmod-tun",)
    conffiles: tuple[str, ...] = field(default_factory=lambda: tuple(CONFFILES))

    def listed(self, kind: str) -> list[File | Link]:
        """All entries by their paths, in order, with what only apk wants."""
        entries = list(self.entries)
        if kind == "apk":
            entries += self._apk_records()
        return sorted(entries, key=lambda entry: entry.path)

    def folders(self, kind: str) -> list[tuple[str, list[File | Link]]]:
        """Each folder with what is in it, the root (an empty path) first."""
        found: dict[str, list[File | Link]] = {"": []}
        for entry in self.listed(kind):
            folder = entry.path.rpartition("/")[0]
            parts = folder.split("/") if folder else []
            for end in range(1, len(parts) + 1):
                found.setdefault("/".join(parts[:end]), [])
            found[folder].append(entry)
        return [(name, sorted(found[name], key=lambda entry: entry.name)) for name in sorted(found)]

    def installed_bytes(self, kind: str) -> int:
        return sum(len(entry.data) for entry in self.listed(kind) if isinstance(entry, File))

    def control(self) -> str:
        """opkg's description of the package. A field that is empty is left out: opkg can't read one."""
        depends = f"Depends: {', '.join(self.depends)}\n" if self.depends else ""
        return (
            f"Package: {self.name}\nVersion: {self.version}\n{depends}License: {self.license}\n"
            f"Section: net\nMaintainer: {self.maintainer}\nArchitecture: {self.arch}\n"
            f"SourceDateEpoch: {self.epoch}\nInstalled-Size: {self.installed_bytes('ipk')}\nDescription:  {self.description}\n"
        )

    def ipk_scripts(self) -> dict[str, str]:
        return {
            "postinst": f"#!/bin/sh\n{NO_SCRIPT}{FUNCTIONS}default_postinst $0 $@\n",
            "postinst-pkg": f"#!/bin/sh\n{AFTER_INSTALL}",
            "prerm": f"#!/bin/sh\n{FUNCTIONS}default_prerm $0 $@\n",
            "prerm-pkg": f"#!/bin/sh\n{BEFORE_REMOVAL}",
        }

    def apk_scripts(self) -> dict[str, str]:
        named = f'export root="${{IPKG_INSTROOT}}"\nexport pkgname="{self.name}"\n'
        install = f"{NO_SCRIPT}{FUNCTIONS}{named}add_group_and_user\ndefault_postinst\n{AFTER_INSTALL}"
        return {
            "post-install": f"#!/bin/sh\n{install}",
            "pre-deinstall": f"#!/bin/sh\n{FUNCTIONS}{named}{BEFORE_REMOVAL}default_prerm\n",
            "post-upgrade": f"#!/bin/sh\nexport PKG_UPGRADE=1\n{install}",
        }

    def _apk_records(self) -> list[File]:
        """What OpenWrt's functions and sysupgrade look up, where opkg has files of its own."""
        at = f"lib/apk/packages/{self.name}"
        listed = "".join(f"/{entry.path}\n" for entry in sorted(self.entries, key=lambda entry: entry.path))
        by_path = {f"/{entry.path}": entry for entry in self.entries if isinstance(entry, File)}
        hashes = "".join(f"{path} {hashlib.sha256(by_path[path].data).hexdigest()}\n" for path in self.conffiles)
        return [
            File(f"{at}.list", listed.encode()),
            File(f"{at}.conffiles", "".join(f"{path}\n" for path in self.conffiles).encode()),
            File(f"{at}.conffiles_static", hashes.encode()),
        ]


def make(arch: str, version: str, epoch: int, program: bytes) -> Package:
    """The package with `program`, the box's binary for that architecture, and everything below `files/`."""
    entries: list[File | Link] = [File(PROGRAM, program, 0o755)]
    entries += [Link(path, target) for path, target in LINKS.items()]
    root = HERE / "files"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            name = path.relative_to(root).as_posix()
            mode = 0o600 if name in PRIVATE else 0o755 if os.access(path, os.X_OK) else 0o644
            entries.append(File(name, path.read_bytes(), mode))
    return Package(arch, version, epoch, tuple(entries))
