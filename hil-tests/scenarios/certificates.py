"""Our relay and an authority that somebody else wrote, which validates at port 443 as it is."""

import json
import os
import subprocess

from lab.altnet import BINARIES, ROOT, TARGET, build_binaries
from lab.places import CannotRunHere, Lab, wait_for

CADDY = TARGET / "ci-tools/caddy/usr/bin/caddy"
NAME = "relay.altnet.test"
FOLDER = "/var/lib/altnet-acme"
PORT = 9443
CADDYFILE = f"""
{{
    admin off
    auto_https disable_redirects
    skip_install_trust
    pki {{
        ca home {{
            name Home
        }}
    }}
}}
https://127.0.0.1:{PORT} {{
    tls {{
        issuer internal {{
            ca home
        }}
    }}
    acme_server {{
        ca home
        lifetime 1h
        challenges tls-alpn-01
    }}
}}
"""


def an_authority_of_ones_own_signs_for_our_relay() -> None:
    """altnet-acme has Caddy's authority (smallstep's) sign at port 443, and altnetd shows what it signed, renewed too, without a restart."""
    if subprocess.run([ROOT / "ci/install", "acme"]).returncode:
        raise CannotRunHere("Caddy could not be had")
    build_binaries()
    with Lab() as lab:
        lab.environment = {"PATH": f"{BINARIES}:{os.environ['PATH']}"}
        place = lab.place("relay")
        place.path("/etc/hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
        (place.folder / "Caddyfile").write_text(CADDYFILE)
        data = {"XDG_DATA_HOME": str(place.folder / "data"), "XDG_CONFIG_HOME": str(place.folder / "config")}
        place.start(str(CADDY), "run", "--config", "Caddyfile", log="caddy.log", env=data)
        # As whoever keeps the certificate reads it, who isn't root.
        authority = wait_for("the authority", lambda: next((place.folder / "data").rglob("root.crt"), None))
        place.path("/etc/authority.pem").write_bytes(authority.read_bytes())
        # Its port is open before it has a certificate of its own.
        directory = f"https://127.0.0.1:{PORT}/acme/home/directory"
        wait_for("its server", lambda: _status_of(place, directory) == "200")

        (place.folder / "altnet.toml").write_text(f'[relay]\nlisten = "[::]:443"\nacme = "{FOLDER}"\n')
        place.start("altnetd", "--config", "altnet.toml", log="relay.log")
        said = lambda: (lab.dir / "relay.log").read_text()
        wait_for("altnetd", lambda: "relays over TLS" in said())
        assert _probe(place) != "200", "it shows a certificate that nobody signed"

        (place.folder / "acme.toml").write_text(
            f'names = ["{NAME}"]\nagree_to_terms = true\ngroup = "root"\nca = "/etc/authority.pem"\n'
            f'directory = "{directory}"\nfolder = "{FOLDER}"\n')
        place.start("altnet-acme", "run", "--user", "nobody", "--config", "acme.toml", log="acme.log")
        wait_for("a certificate", lambda: _probe(place) == "200", timeout_s=40)
        assert place.path(FOLDER).stat().st_mode & 0o7777 == 0o2750
        assert place.path(f"{FOLDER}/account.state").stat().st_mode & 0o777 == 0o600
        first = _status(place)
        assert first["is_good"] and first["failures"] == 0, first

        place.run("altnet-acme", "renew", "--config", "acme.toml")
        second = _status(place)
        assert second["certificate"]["sha256"] != first["certificate"]["sha256"], second
        shown = place.run("openssl", "s_client", "-connect", "127.0.0.1:443", "-servername", NAME, "-showcerts", check=False).stdout
        (place.folder / "shown.pem").write_text(shown)
        printed = place.run("openssl", "x509", "-in", "shown.pem", "-noout", "-fingerprint", "-sha256").stdout
        assert printed.strip().split("=")[1].replace(":", "").lower() == second["certificate"]["sha256"], printed
        assert _probe(place) == "200"
        # Nobody validates now, so nobody is answered.
        refused = place.run("openssl", "s_client", "-connect", "127.0.0.1:443", "-servername", NAME, "-alpn", "acme-tls/1", check=False)
        assert refused.returncode and "alert" in refused.stderr, refused.stderr
        assert said().count("altnet-acme has got") == 2 and "of no use" not in said(), said()


def _probe(place) -> str:
    """What a client that trusts that authority alone is answered, or nothing."""
    return _status_of(place, f"https://{NAME}/derp/probe")


def _status_of(place, url: str) -> str:
    return place.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", "/etc/authority.pem", "--max-time", "10",
                     url, check=False).stdout


def _status(place) -> dict:
    return json.loads(place.run("altnet-acme", "status", "--json", "--config", "acme.toml").stdout)


SCENARIOS = [an_authority_of_ones_own_signs_for_our_relay]
