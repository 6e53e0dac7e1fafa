"""The repository as plain data, so that every check is a function of it.

A `Tree` maps paths to text and carries what cargo says of the workspace. A check reads a `Tree`
and returns complaints; its self-test hands it a `Tree` with a fault planted.
"""

import json
import pathlib
import re
import subprocess
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclass
class Tree:
    """Files by path relative to the root, and packages as `cargo metadata` lists them."""

    files: dict[str, str] = field(default_factory=dict)
    packages: list[dict] = field(default_factory=list)

    def under(self, folder: str, suffix: str = "") -> dict[str, str]:
        """The files below `folder` whose names end in `suffix`."""
        return {
            path: text
            for path, text in self.files.items()
            if path.startswith(folder.rstrip("/") + "/") and path.endswith(suffix)
        }


def load() -> Tree:
    """Reads what git tracks or would track, and the workspace's manifest."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()
    files = {}
    for path in filter(None, listed.split("\0")):
        try:
            files[path] = (ROOT / path).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            files[path] = ""  # a corpus entry, or a file on its way out: present, unread
    metadata = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout
    return Tree(files, json.loads(metadata)["packages"])


_QUIET = re.compile(
    r"""
      //[^\n]*                                   # line comment
    | /\*.*?\*/                                  # block comment
    | \bb?r(?P<hashes>\#*)".*?"(?P=hashes)       # raw string
    | b?"(?:\\.|[^"\\])*"                        # string
    | b?'(?:\\.[^']*|[^'\\\n])'                  # character, not a lifetime
    """,
    re.VERBOSE | re.DOTALL,
)


def code_only(source: str) -> str:
    """Rust source with comments and literals blanked; line numbers are kept."""
    return _QUIET.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), source)


def without_tests(source: str) -> str:
    """`code_only` source with every item under a test-only `#[cfg(..)]` blanked too."""
    code = code_only(source)
    for start in [found.start() for found in re.finditer(r"#\[cfg\((?:all\()?(?:test|loom)\b", code)]:
        end = _item_end(code, start)
        code = code[:start] + re.sub(r"[^\n]", " ", code[start:end]) + code[end:]
    return code


def _item_end(code: str, start: int) -> int:
    """Where the item that follows an attribute ends: its `;`, or the brace that closes it."""
    depth = 0
    for at in range(start, len(code)):
        letter = code[at]
        if letter in "{[(":
            depth += 1
        elif letter in "}])":
            depth -= 1
            if depth == 0 and letter == "}":
                return at + 1
        elif letter == ";" and depth == 0:
            return at + 1
    return len(code)


def lines_matching(pattern: str, code: str) -> list[int]:
    """The one-based numbers of the lines on which `pattern` begins."""
    return [code.count("\n", 0, found.start()) + 1 for found in re.finditer(pattern, code)]
