"""Who may import whom, read from `cargo metadata` and not from memory.

    wire <- tunnel <- core <- {daemon, embassy, sim};  provision imports wire and core
"""

from tree import Tree

WIRE, TUNNEL, CORE = "altnet-wire", "altnet-tunnel", "altnet-core"
ENGINE = {WIRE, TUNNEL, CORE}

# What each crate of ours may import of ours. A crate that is not named here is refused.
MAY_IMPORT = {
    WIRE: set(),
    TUNNEL: {WIRE},
    CORE: {WIRE, TUNNEL},
    "altnet-sim": ENGINE,
    "altnet-acme": {"altnet-relay", "altnet-service"},
    "altnet-box": {"altnet-daemon", "altnet-tls"},
    "altnet-claim": set(),
    "altnet-setup": {"altnet-claim", "altnet-service"},
    "altnet-service": set(),
    "altnet-daemon": ENGINE | {"altnet-relay", "altnet-router", "altnet-service", "altnet-updater"},
    "altnet-embassy": ENGINE,
    "altnet-provision": {WIRE, CORE, "altnet-claim", "altnet-update"},
    "altnet-login": {"altnet-service"},
    "altnet-relay": {WIRE, CORE},
    "altnet-rescue": {"altnet-service", "altnet-update", WIRE},
    "altnet-router": {"altnet-service", "altnet-update", WIRE},
    "altnet-tls": {WIRE},
    "altnet-update": {WIRE},
    "altnet-updater": {WIRE, "altnet-router", "altnet-service", "altnet-update"},
    "altnet-desktop": set(),
    "hil-tests": {WIRE},
    "altnet-fuzz": ENGINE | {"altnet-acme", "altnet-claim", "altnet-sim", "altnet-daemon", "altnet-login", "altnet-provision", "altnet-router", "altnet-service", "altnet-setup", "altnet-update", "altnet-updater"},
}

# Third-party crates that the portable crates may link. Each builds without `std`, and each is
# taken without its default features.
PORTABLE = {
    "bitflags", "blake2", "chacha20", "chacha20poly1305", "crypto_secretbox", "ed25519-dalek", "heapless", "hmac", "md-5",
    "portable-atomic", "postcard", "salsa20", "serde", "sha1", "sha2", "snow", "subtle", "thiserror", "x25519-dalek", "zeroize",
}


def our_imports_follow_the_map(tree: Tree) -> list[str]:
    """Normal and build dependencies stay within `MAY_IMPORT`; tests may also use the simulator, be the process that ends TLS, and run a relay."""
    complaints = []
    for package in tree.packages:
        name = package["name"]
        if name not in MAY_IMPORT:
            complaints.append(f"{name} has no place in the import map; give it one in ci/checks/imports.py")
            continue
        for dependency in filter(_is_ours, package["dependencies"]):
            allowed = MAY_IMPORT[name]
            if dependency["kind"] == "dev":
                allowed = allowed | {"altnet-sim", "altnet-tls"} | (ENGINE if "altnet-relay" in allowed else set())
            if dependency["name"] not in allowed:
                complaints.append(f"{name} may not import {dependency['name']}")
    return complaints


def portable_crates_link_portable_crates(tree: Tree) -> list[str]:
    """wire, tunnel and core link nothing that could need `std`, and take no default features."""
    complaints = []
    for package in tree.packages:
        if package["name"] not in ENGINE:
            continue
        if package["features"]:
            complaints.append(f"{package['name']} has cargo features: a device differs by values, not by features")
        for dependency in package["dependencies"]:
            if dependency["kind"] == "dev" or _is_ours(dependency):
                continue
            if dependency["name"] not in PORTABLE:
                complaints.append(f"{package['name']} links {dependency['name']}, which is not known to be portable")
            elif dependency["uses_default_features"]:
                complaints.append(f"{package['name']} takes the default features of {dependency['name']}")
    return complaints


def _is_ours(dependency: dict) -> bool:
    return dependency.get("path") is not None


def _package(name: str, *dependencies: dict, features: dict | None = None) -> dict:
    return {"name": name, "dependencies": list(dependencies), "features": features or {}}


def _ours(name: str, kind: str | None = None) -> dict:
    return {"name": name, "kind": kind, "path": "somewhere", "uses_default_features": True}


def _theirs(name: str, default_features: bool = False) -> dict:
    return {"name": name, "kind": None, "uses_default_features": default_features}


CHECKS = {
    our_imports_follow_the_map: [
        Tree(packages=[_package(WIRE, _ours(CORE))]),
        Tree(packages=[_package(TUNNEL, _ours(CORE, kind="dev"))]),
        Tree(packages=[_package("altnet-provision", _ours(TUNNEL))]),
        Tree(packages=[_package("newcomer")]),
    ],
    portable_crates_link_portable_crates: [
        Tree(packages=[_package(CORE, _theirs("tokio"))]),
        Tree(packages=[_package(CORE, _theirs("serde", default_features=True))]),
        Tree(packages=[_package(WIRE, features={"std": []})]),
    ],
}
