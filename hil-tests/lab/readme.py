"""The commands a person would type, taken from the README so that it cannot go stale.

A fence of shell under an HTML comment is a step, typed at the place the comment names:

    <!-- demo: gateway-a -->
    ```sh
    altnetd --config altnet.toml &
    altnet join "$(cat house-a.invite)"
    ```

A line that ends in `&` starts a daemon that stays; the lines after it are typed once the daemon
answers. A fence under a comment with `file=NAME` is the text of a file at the places it names:

    <!-- demo: gateway-a gateway-b file=altnet.toml -->
"""

import pathlib
import re
from dataclasses import dataclass

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
FENCE = re.compile(
    r"<!--\s*demo:\s*(?P<places>[\w -]+?)(?:\s+file=(?P<file>\S+))?\s*-->\s*```\w*\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Step:
    """One fence, at one place."""

    place: str
    text: str
    file: str | None = None  # what the text is written to; none for commands

    @property
    def daemon(self) -> str | None:
        """The command that stays, without its `&`."""
        return next((line.strip().removesuffix("&").strip() for line in self.text.splitlines() if line.rstrip().endswith("&")), None)

    @property
    def script(self) -> str:
        """The commands that end."""
        return "".join(line for line in self.text.splitlines(True) if not line.rstrip().endswith("&"))


def steps(text: str | None = None) -> list[Step]:
    """The README's steps in the order a reader meets them."""
    text = README.read_text() if text is None else text
    return [Step(place, found["text"], found["file"]) for found in FENCE.finditer(text) for place in found["places"].split()]
