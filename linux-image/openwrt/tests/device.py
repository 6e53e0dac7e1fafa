"""A pretend OpenWrt device: a folder in which the package's scripts run under busybox's ash.

What is OpenWrt's own is a stub that tells this process what it is called with: `uci` works on the device's files,
`altnet` is the real one, everything else succeeds. All calls but those that only read are recorded.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

from uci_store import Uci

HERE = pathlib.Path(__file__).resolve().parent
FILES = HERE.parent / "files"
READS = {"get", "show"}
SEPARATOR = "\x1f"

# Sends its name and arguments, and does as it is told: what goes wrong is said on standard error. One at a time.
STUB = """#!/bin/sh
until mkdir /run/asking 2>/dev/null; do sleep 0.05; done
{ printf '%s\\037' "$0" "$@"; echo; } >/run/ask
{ read -r code; if [ "$code" = 0 ]; then cat; else cat >&2; fi; } </run/answer
rmdir /run/asking
exit "$code"
"""

# What of /lib/functions.sh is used, after its documentation.
FUNCTIONS = """
get_bool() {
	case "$1" in
	1|on|true|yes|enabled) echo 1 ;;
	0|off|false|no|disabled) echo 0 ;;
	*) echo "$2" ;;
	esac
}
default_postinst() {
	for i in /etc/uci-defaults/*; do
		[ ! -f "$i" ] || { ( . "$i" ) && rm -f "$i"; }
	done
	[ ! -f /control/postinst-pkg ] || . /control/postinst-pkg
	[ "$PKG_UPGRADE" = 1 ] || /etc/init.d/altnet enable
	/etc/init.d/altnet start
}
default_prerm() {
	[ ! -f /control/prerm-pkg ] || ( . /control/prerm-pkg )
	[ "$PKG_UPGRADE" = 1 ] || /etc/init.d/altnet disable
	/etc/init.d/altnet stop
}
add_group_and_user() { :; }
"""

RC_COMMON = """#!/bin/sh
. /lib/functions.sh
initscript=$1 action=$2
stop_service() { :; }
for name in procd_open_instance procd_set_param procd_close_instance procd_add_reload_trigger procd_kill; do
	eval "$name() { /usr/lib/stub/$name \\"\\$@\\"; }"
done
start() {
	start_service
	code=$?
	service_triggers
	return $code
}
stop() {
	stop_service
	procd_kill altnet
}
boot() { start; }
. "$initscript"
link="/etc/rc.d/S${START}${initscript##*/}"
case "$action" in
reload) reload_service ;;
running) /usr/lib/stub/rc running "${initscript##*/}" ;;
enable) /usr/lib/stub/rc enable && ln -sf "../init.d/${initscript##*/}" "$link" ;;
disable) /usr/lib/stub/rc disable && rm -f "$link" ;;
*) "$action" ;;
esac
"""

STUBS = [f"usr/lib/stub/{name}" for name in (
    "procd_open_instance", "procd_set_param", "procd_close_instance", "procd_add_reload_trigger", "procd_kill", "rc",
)] + ["sbin/uci", "usr/bin/logger", "bin/ubus", "usr/bin/altnet", "etc/init.d/dnsmasq", "etc/init.d/firewall"]


class Device:
    """Made with OpenWrt's usual files and the package's. `altnet` is the program that checks the configuration."""

    def __init__(self, altnet: pathlib.Path) -> None:
        self.altnet = altnet
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="altnet-openwrt-"))
        self.calls: list[str] = []
        self.fault: Exception | None = None
        self.forking = threading.Lock()
        self.output = ""
        self.control: dict[str, str] = {}
        for folder in ("bin", "sbin", "etc/config", "etc/rc.d", "run", "lib", "dev", "control", "tmp"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/busybox", self.root / "bin/busybox")
        for tool in ("sh", "sed", "head", "cat", "rm", "grep", "mkdir", "rmdir", "sleep", "ln"):
            (self.root / "bin" / tool).symlink_to("busybox")
        self.reinstall_files()
        for file in (HERE / "stock").iterdir():
            shutil.copy(file, self.root / "etc/config" / file.name)
        self._write("lib/functions.sh", FUNCTIONS)
        self._write("etc/rc.common", RC_COMMON)
        for stub in STUBS:
            self._write(stub, STUB)
        self._write("dev/null", "")
        for fifo in ("ask", "answer"):
            os.mkfifo(self.root / "run" / fifo)
        self.uci = Uci(self.root / "etc/config")

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root)

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def reinstall_files(self) -> None:
        """The package's files come, as with an upgrade: but for the configuration that is there."""
        for path in FILES.rglob("*"):
            to = self.root / path.relative_to(FILES)
            if path.is_file() and not (to.exists() and to.parent.name == "config"):
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)

    def script(self, text: str) -> list[str]:
        """Runs a script; its calls."""
        self._write("tmp/script", text)
        return self.run("/bin/sh", "/tmp/script")

    def run(self, *command: str) -> list[str]:
        """Runs a command on the device; the calls it made."""
        self.calls = []
        inside = ["chroot", str(self.root), *command]
        if os.geteuid():
            inside = ["unshare", "-r", *inside]
        environment = {"PATH": "/bin:/sbin:/usr/bin"}
        process = subprocess.Popen(inside, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        answers = threading.Thread(target=self._answer, daemon=True)
        answers.start()
        try:
            self.output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        self.code = process.returncode
        # Wakes the other thread, which waits for the next call.
        (self.root / "run/ask").write_text("\n")
        answers.join()
        if self.fault:
            raise self.fault
        return self.calls

    def _answer(self) -> None:
        # Open all the time, for writing too: what is written while nobody has it open for reading is lost.
        asked = os.open(self.root / "run/ask", os.O_RDWR)
        try:
            while words := self._question(asked):
                self._reply(words)
        finally:
            os.close(asked)

    def _question(self, asked: int) -> list[str]:
        """The words of a call; none to end."""
        text = b""
        while not text.endswith(f"{SEPARATOR}\n".encode()):
            text += os.read(asked, 65536)
            if not text.strip(b"\n"):
                return []
        return text.decode().rstrip("\n").split(SEPARATOR)

    def _reply(self, words: list[str]) -> None:
        name, arguments = words[0].rsplit("/", 1)[-1], words[1:-1]
        if words[0].startswith("/etc/init.d"):
            name = words[0]
        try:
            code, text = self._do(name, arguments)
        except Exception as error:
            # Told once the script has ended; it must not wait for an answer for ever.
            self.fault, code, text = error, 1, ""
        # A process that begins meanwhile would have the answer's end open, too.
        with self.forking:
            try:
                (self.root / "run/answer").write_text(f"{code}\n{text}")
            except BrokenPipeError:
                pass  # whoever asked was ended meanwhile

    def _do(self, name: str, arguments: list[str]) -> tuple[int, str]:
        if name == "altnet":
            place = [str(self.root) + word if word.startswith("/") else word for word in arguments]
            done = subprocess.run([self.altnet, *place], capture_output=True, text=True)
            return done.returncode, (done.stderr + done.stdout).replace(str(self.root), "")
        is_write = name != "uci" or not READS & set(arguments)
        if is_write:
            self.calls.append(" ".join([name, *arguments]))
        return self.uci.run(*arguments) if name == "uci" else (0, "")

    def config(self, name: str) -> str:
        return (self.root / "etc/config" / name).read_text()

    def change(self, name: str, old: str, new: str) -> None:
        """A person edits a file."""
        text = self.config(name)
        assert old in text, f"{old!r} is not in {name}"
        (self.root / "etc/config" / name).write_text(text.replace(old, new, 1))
        self.uci.files.pop(name, None)
