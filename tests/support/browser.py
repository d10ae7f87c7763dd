"""The page in a process of its own, and a headless Chromium before it; neither may leave loopback.

python tests/support/browser.py OUT.png [PROMPT] paints with the embedded model and saves what the page looks like.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from processes import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", None, "")
# Python imports this before anything else: a socket that would leave the machine is written down, and refused
GUARD = f"""
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        host = address[0] if isinstance(address, tuple) else None
        host = host.decode() if isinstance(host, bytes) else host
        if host not in {LOOPBACK!r}:
            with open(os.environ["STRAYED"], "a") as file:
                print(event, address, file=file)
            raise OSError(f"{{host}} is not loopback")

sys.addaudithook(watch)
"""


@contextmanager
def page_process(*program: str, root: Path = ROOT) -> Iterator[tuple[str, Path]]:
    """`python -m pipelines demo`, or another program that shows the page, with the sources of root, on a free port.

    Yields its address, and the file of hosts that it strayed to. However it is left, it ends well and leaves nothing.
    """
    with TemporaryDirectory() as place:
        environment = guarded(Path(place), root) | {"TMPDIR": place}
        strayed = Path(environment["STRAYED"])
        program = program or ("-m", "pipelines", "demo")
        command = [sys.executable, *program, "--host", "127.0.0.1", "--port", str(free_port())]
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()  # when it listens, or empty when it stopped
            address = next((word for word in line.split() if word.startswith("http://")), None)
            if address is None:
                raise RuntimeError(f"the page did not start: {line!r}")
            yield address, strayed
        finally:
            process.terminate()
            ended, left = process.wait(60), list(Path(place).glob("armchair-page-*"))
        if ended != 0 or left:
            raise RuntimeError(f"the page ended with {ended} and left {left}")


def guarded(place: Path, root: Path = ROOT) -> dict[str, str]:
    """The environment of a Python that cannot leave loopback: what it tried stands in the file named STRAYED."""
    (place / "sitecustomize.py").write_text(GUARD)
    strayed = place / "strayed.txt"
    strayed.touch()
    return {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{root}", "STRAYED": str(strayed)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Visit:
    """
    A visitor's page, where no name but loopback resolves.

    errors: what the console or the page itself complained of. requests: every address asked for.
    """

    def __init__(self, page: Page):
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def paint(self, prompt: str, number: int = 4) -> None:
        """Types the prompt, paints, and waits for the pictures."""
        self.page.fill("#prompt textarea", prompt)
        self.page.fill("#number input[type=number]", str(number))
        self.page.click("#paint")
        self.page.wait_for_selector("#state progress", timeout=60_000)
        self.page.wait_for_selector(f"#state >> text={number} picture", timeout=120_000)

    def draw(self, stroke: list[tuple[float, float]]) -> None:
        """A stroke of the brush over the editor's canvas: points as shares of its width and height."""
        self.page.locator("#editor button[title*=rush], #editor button[aria-label*=rush]").first.click()
        box = self.page.locator("#editor canvas").first.bounding_box()
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=5)
        self.page.mouse.up()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", nowhere])
        yield browser
        browser.close()


def visit(browser: Browser, address: str, width: int = 1280, height: int = 960) -> Visit:
    """A visitor of its own, when the page is there."""
    visitor = Visit(browser.new_page(viewport={"width": width, "height": height}))
    visitor.page.goto(address)
    visitor.page.wait_for_selector("#paint", timeout=60_000)
    return visitor


def main(out: str, prompt: str = "an armchair shaped like an avocado") -> None:
    with page_process() as (address, _), chromium() as browser:
        visitor = visit(browser, address)
        visitor.paint(prompt)
        visitor.page.wait_for_timeout(1000)  # the pictures fade in
        shot = Image.open(io.BytesIO(visitor.page.screenshot()))
    shot.convert("RGB").quantize(256).save(out, optimize=True)  # a third of the bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
