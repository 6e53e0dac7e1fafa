"""The commands a person would type, taken from the README so that it cannot go stale.

A fence of shell under an HTML comment is a step:

    <!-- demo: gateway-a -->
    ```sh
    altnet join --bundle house-a.bundle
    ```

The word after `demo:` names the place it is typed at. `stays` after it means that the fence's
commands keep running (a daemon in the foreground), and the story goes on beside them.
"""

import pathlib
import re
from dataclasses import dataclass

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
STEP = re.compile(r"<!--\s*demo:\s*(?P<place>[\w-]+)(?P<stays>\s+stays)?\s*-->\s*```sh\n(?P<script>.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One fence."""

    place: str
    stays: bool
    script: str


def steps(text: str | None = None) -> list[Step]:
    """The README's steps in the order a reader meets them."""
    text = README.read_text() if text is None else text
    return [Step(found["place"], bool(found["stays"]), found["script"]) for found in STEP.finditer(text)]
