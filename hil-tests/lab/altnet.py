"""Two homes provisioned and running: the README's story, told in a lab.

Everything a person would type comes from the README (`readme`); everything here is what goes on
around it: computers, cables, a page to be read, and waiting until things are so.
"""

import functools
import json
import os
import pathlib
import secrets
import shlex
import shutil
import signal
import subprocess
import sys

from . import clients, homes, readme
from .places import IN_GUEST, Lab, LabError, Place, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# As they ship, unless they are to be as tests are built.
BINARIES = TARGET / os.environ.get("ALTNET_BUILD", "release")
SHELL = ("bash", "-euo", "pipefail", "-c")
NOTES_PORT = "8000"  # as in the README
PYTHON = os.path.realpath(sys.executable)


class Story:
    """The homes of a lab and the README's steps, told one after another."""

    def __init__(self, lab: Lab, kind_a: str = "portcone", kind_b: str = "symmetric", page: str = "hello", also_in_path: str = ""):
        """Builds the places; `also_in_path` is a folder of binaries to prefer."""
        build_binaries()
        self.lab = lab
        self.internet = homes.build(lab, kind_a, kind_b)
        self.daemons: dict[str, str] = {}  # by place: the command that stays, to be started again
        self.environments: dict[str, dict[str, str]] = {}  # by place: what its daemon sees besides
        lab.environment = {
            "PATH": ":".join(filter(None, [also_in_path, str(BINARIES), os.environ["PATH"]])),
            "ALTNET_PASSPHRASE": secrets.token_urlsafe(16),
            "RELAY_IP": homes.RELAY,
            "WIKI_MAC": clients.mac(self.internet.b.client),
        }
        for home in self.internet.homes:
            clients.listen_for_advertisements(home.client)
        self._serve(page)

    def _serve(self, page: str) -> None:
        """Puts a page on home B's computer, with the web server that comes with Python."""
        folder = self.lab.dir / "www"
        folder.mkdir()
        (folder / "index.html").write_text(page)
        self.internet.b.client.start(
            PYTHON, "-m", "http.server", "--bind", "::", "--directory", str(folder), "80", log="client-b-http.log"
        )
        notes = pathlib.Path(__file__).with_name("notes.py")
        self.internet.b.client.start(PYTHON, str(notes), NOTES_PORT, str(folder / "index.html"), log="client-b-notes.log")

    def tell(self, before=lambda step: None, without: frozenset[str] | set[str] = frozenset()) -> None:
        """Types the README's steps at their places, but not at those of `without`.

        The steps of clients are what the story leads to; `fetch` types them. The policy names
        everybody, so where somebody is left out, the one that a network begins with stays.
        """
        steps = [step for step in readme.steps() if not step.place.startswith("client-")]
        if not steps:
            raise LabError("README.md has no fence marked `<!-- demo: ... -->`")
        for step in steps:
            if step.place not in without and not (without and "policy" in (step.file or step.script)):
                before(step)
                self.type(step)

    def type(self, step: readme.Step) -> None:
        """Types one step: its file, or its daemon and then its commands."""
        place = self.place(step.place)
        if step.file:
            (place.folder / step.file).write_text(step.text)
            return
        self._carry(step, place)
        if step.daemon:
            self.daemons[step.place] = step.daemon
            self.start(place)
        if step.script.strip():
            place.run(*SHELL, step.script, timeout_s=120)

    def _carry(self, step: readme.Step, place: Place) -> None:
        """Brings the files a step names from the owner's computer, as a person would on a stick."""
        for file in self.internet.owner.folder.iterdir():
            if file.name in step.text and place is not self.internet.owner:
                shutil.copy(file, place.folder)

    def place(self, name: str) -> Place:
        """The computer of this name."""
        if name not in self.lab.places:
            raise LabError(f"the README types at {name}, which is none of {', '.join(self.lab.places)}")
        return self.lab.places[name]

    def start(self, place: Place, wait: bool = True) -> None:
        """Starts a place's daemon as the README does, and waits until it answers its own command line."""
        (place.folder / "altnet.toml").touch()
        daemon = place.start(*SHELL, f"exec {self.daemons[place.name]}", log=f"{place.name}.log",
                             env=self.environments.get(place.name))
        if wait:
            wait_for_answer(place, daemon)

    def stop(self, place: Place, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends a place's daemon, politely or not, and waits until it is gone."""
        stop(place, number)

    def running(self, place: Place) -> list[int]:
        """The process ids of the daemons running at a place."""
        return running(place)

    def log(self, place: Place) -> str:
        """The end of what a place's daemon wrote."""
        return log_end(place)

    def fetch(self, timeout_s: float = 60) -> str:
        """Types the README's step at client A until it succeeds; returns the page."""
        step = next((step for step in readme.steps() if step.place == "client-a"), None)
        if step is None:
            raise LabError("README.md has no fence marked `<!-- demo: client-a -->`")
        client = self.internet.a.client
        clients.resolver(client)
        last = None

        def page() -> str | None:
            nonlocal last
            try:
                last = client.run(*SHELL, step.script, check=False, timeout_s=15)
            except subprocess.TimeoutExpired:
                return None  # a person would press reload
            return last.stdout if last.returncode == 0 else None

        try:
            return wait_for(f"`{step.script.strip()}` to succeed on {client.name}", page, timeout_s, every_s=0.25)
        except LabError as fault:
            raise LabError(f"{fault}; it said: {(last.stderr if last else '').strip()}") from None

    def url(self) -> str:
        """The address of the page, as the README's client types it."""
        words = [word for step in readme.steps() if step.place == "client-a" for word in shlex.split(step.script, comments=True)]
        return next(word for word in words if word.startswith("http://"))


@functools.cache
def build_binaries() -> None:
    """Builds what the lab runs, once; quick when nothing changed. In a guest that was done by who started it."""
    if IN_GUEST:
        return
    if subprocess.run([ROOT / "ci/release"]).returncode:
        raise LabError("the release binaries do not build")


def altnet(place: Place, *words: str) -> dict:
    """Asks a place's daemon by its own command line and returns the answer."""
    return json.loads(place.run("altnet", *words, "--json").stdout)


def wait_for_answer(place: Place, daemon: subprocess.Popen) -> None:
    """Waits until a daemon that was just started answers its command line; one that ended is said with what it wrote."""

    def answers() -> bool:
        if daemon.poll() is not None:
            raise LabError(f"{place.name}: the daemon ended at once\n{log_end(place)}")
        return place.run("altnet", "status", check=False).returncode == 0

    wait_for(f"altnetd on {place.name} to answer", answers)


def log_end(place: Place) -> str:
    """The end of what a place's daemon wrote."""
    return (place.lab.dir / f"{place.name}.log").read_text(errors="replace")[-3000:]


def running(place: Place) -> list[int]:
    """The process ids of the daemons running at a place."""
    return [pid for pid, line in place.processes().items() if os.path.basename(line.split(" ")[0]) == "altnetd"]


def stop(place: Place, number: signal.Signals = signal.SIGTERM) -> None:
    """Ends a place's daemon, politely or not, and waits until it is gone."""
    pids = running(place)
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    wait_for(f"altnetd on {place.name} to end", lambda: not running(place) and all(map(has_ended, pids)), every_s=0.01)


def has_ended(pid: int) -> bool:
    """Whether a process is gone with its last thread, and so are its sockets; one that is ending has no command line any more, but has them."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z" and len(threads) == 1


def path(place: Place, name: str) -> str:
    """How a place reaches a peer now: `direct`, `relay` or what it says instead; `none` if it doesn't know it."""
    return next((peer["path"] for peer in altnet(place, "peers")["peers"] if peer["name"] == name), "none")


def path_between_homes(story: Story) -> str:
    """How gateway A reaches gateway B now."""
    return path(story.internet.a.gateway, "house-b")


def metric(place: Place, name: str) -> float:
    """A number of a place's daemon."""
    page = place.run("altnet", "metrics").stdout
    return next((float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(f"{name} ")), 0.0)


def goes_by(story: Story, way: str, server: str, timeout_s: float = 60) -> None:
    """The homes reach each other by somebody else's server alone, and no ping is lost; `altnet why` calls it `server`."""
    assert story.fetch(timeout_s=timeout_s), f"no page by the {server}"
    wait_for(f"the path to be by the {server}", lambda: story.fetch(15) and path_between_homes(story) == way, timeout_s=60)
    said = story.internet.a.client.run("ping", "-6", "-c", "20", "-i", "0.2", "-W", "2", "wiki.home.alt", check=False).stdout
    print(said.strip().splitlines()[-2])
    assert " 0% packet loss" in said, f"pings were lost by the {server}\n{said}"
    why = story.internet.a.gateway.run("altnet", "why", "wiki").stdout
    print(why)
    assert server in why, "`altnet why` does not call it what it is"
