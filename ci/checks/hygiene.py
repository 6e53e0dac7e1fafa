"""What the repository as a whole may hold."""

import ast
import re
import subprocess

from tree import Tree

TOP_LEVEL = {
    "Cargo.toml", "firmware", "board-support", "host-tools", "linux-image", "ci", "hil-tests", "README.md",
    "Cargo.lock", "LICENSE-MIT", "LICENSE-APACHE", "rust-toolchain.toml", "rustfmt.toml", "deny.toml",
}

# Written in pieces so that this file passes its own check.
HOSTS = "|".join(["crates" + r"\.io", "debian" + r"\.org", "pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\.\w+"])
FOREIGN = {
    rf"https?://[\w.-]*(?:{HOSTS})": "names a registry's host; use the machine's own configuration",
    r"(?<![\w.$}])/(?:wo" + r"rk|ho" + r"me/\w+|ro" + r"ot/\.)/?": "names a path of one machine",
}


def the_top_level_is_the_agreed_one(tree: Tree) -> list[str]:
    """Nothing at the top but the rooms, the manifest's companions and hidden files."""
    top = {path.split("/")[0] for path in tree.files}
    return [f"{name} is not part of the top level" for name in sorted(top) if name not in TOP_LEVEL and name[0] != "."]


def no_file_names_a_registry_or_a_machine(tree: Tree) -> list[str]:
    """Tracked text names no package registry's host and no path of the machine it was written on."""
    complaints = []
    for path, text in tree.files.items():
        if path == "Cargo.lock":
            continue
        for number, line in enumerate(text.splitlines(), 1):
            complaints += [f"{path}:{number} {fault}" for pattern, fault in FOREIGN.items() if re.search(pattern, line)]
    return complaints


def every_script_parses(tree: Tree) -> list[str]:
    """Python and shell scripts are at least well formed, also those that run rarely."""
    complaints = []
    for path, text in tree.files.items():
        first = text.split("\n", 1)[0]
        if path.endswith(".py") or re.match(r"#!.*python", first):
            try:
                ast.parse(text)
            except SyntaxError as error:
                complaints.append(f"{path}:{error.lineno} is not Python: {error.msg}")
        elif path.endswith(".sh") or re.match(r"#!.*\b(?:ba)?sh\b", first):
            shell = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
            if shell.returncode:
                complaints.append(f"{path} is not shell: {shell.stderr.strip()}")
    return complaints


CHECKS = {
    the_top_level_is_the_agreed_one: [Tree({"notes.txt": ""}), Tree({"src/main.rs": ""})],
    no_file_names_a_registry_or_a_machine: [
        Tree({"a": "https://index." + "crates.io/x"}),
        Tree({"a": "see /wo" + "rk/main/README.md"}),
        Tree({"a": "cat /ho" + "me/anna/.config"}),
    ],
    every_script_parses: [Tree({"a.py": "def f(:"}), Tree({"a.sh": "if true; then"}), Tree({"run": "#!/bin/sh\ncase x"})],
}
