"""A home in a network that lets nobody out but through an HTTP proxy, from the start."""

from lab import homes
from lab.altnet import PYTHON, Story, altnet
from lab.places import Lab, Place, wait_for

PROXY = "203.0.113.8"
PORT = 3128
# Run at the gateway: of what goes to the internet only the proxy's TCP passes.
ONLY_THE_PROXY = f"""
table inet dark {{
    chain out {{ type filter hook output priority 0; oifname "wan" ip daddr {PROXY} tcp dport {PORT} accept; oifname "wan" drop; }}
    chain in {{ type filter hook input priority 0; iifname "wan" ip saddr {PROXY} tcp sport {PORT} accept; iifname "wan" drop; }}
}}
"""
# Run at the proxy: HTTP CONNECT to port 443 alone (RFC 9110 section 9.3.6), and what it was asked for.
CONNECT = """
import socket, sys, threading
def carry(one, other):
    try:
        while data := one.recv(65536): other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError: pass  # an end that went
def serve(client):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        if not (byte := client.recv(1)): return client.close()
        head += byte
    method, target = head.split()[:2]
    host, port = target.decode().rsplit(":", 1)
    print(method.decode(), target.decode(), flush=True)
    if (method, port) != (b"CONNECT", "443"):
        client.sendall(b"HTTP/1.1 403 Forbidden\\r\\n\\r\\n")
        return client.close()
    server = socket.create_connection((host.strip("[]"), int(port)))
    client.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    threading.Thread(target=carry, args=(server, client), daemon=True).start()
    carry(client, server)
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def serve_tls(story: Story, relay: Place) -> None:
    """Has the relay serve TLS too."""
    story.stop(relay)
    (relay.folder / "altnet.toml").write_text('[relay]\nlisten = "0.0.0.0:443"\n')
    story.daemons[relay.name] += " --config altnet.toml"
    story.start(relay)


def a_home_behind_a_proxy_joins_and_is_reached() -> None:
    """A gateway that is let out to an HTTP proxy alone joins through it, and its home reaches another's page."""
    with Lab() as lab:
        story = Story(lab, "portcone", "portcone")
        relay, gateway = story.internet.relay, story.internet.a.gateway
        proxy = homes.server(lab, story.internet.bridge, "proxy", PROXY)
        proxy.start(PYTHON, "-c", CONNECT, PROXY, str(PORT), log="proxy.log")
        wait_for("the proxy", lambda: f":{PORT}" in proxy._tool("ss", "-Hltn"))

        def before(step) -> None:
            if step.place != gateway.name or not step.daemon:
                return
            serve_tls(story, relay)
            gateway.run("nft", "-f", "-", stdin=ONLY_THE_PROXY)
            config = gateway.folder / "altnet.toml"
            config.write_text(f'proxy = "http://{PROXY}:{PORT}"\n{config.read_text()}')

        story.tell(before=before)
        assert story.fetch(), "no page"
        relays = altnet(gateway, "status")["relays"]
        assert [(one["up"], one["carrier"]) for one in relays] == [(True, "tls")], relays
        asked = (lab.dir / "proxy.log").read_text().splitlines()
        print(f"the proxy was asked for {asked}")
        assert asked and set(asked) == {f"CONNECT {homes.RELAY}:443"}, "the proxy was asked for something else"


SCENARIOS = [a_home_behind_a_proxy_joins_and_is_reached]
