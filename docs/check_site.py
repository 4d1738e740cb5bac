"""Open every page of the built site in headless Chromium, and find what is broken.

    python docs/check_site.py build/docs --output build/docs-test

Checked on every page: links within the site and their anchors; failed requests and errors in
the console; formulas; that nothing is wider than a phone; that text in dark mode can be read.
And that the search finds. Pictures of some pages are written into the folder.

Chromium is Debian's package `chromium`. Where there is none and we are root on Debian, it is
installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    sync_playwright,
)

DESKTOP = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)

#: WCAG 2.1, level AA, for text of the body.
LEAST_CONTRAST = 4.5

#: Sphinx's search takes an anchor with dots, as every name of the reference has, for one with
#: classes. It then sums up the whole page in place of the part: nothing that a reader misses.
KNOWN_WARNING = "Anchored content block not found"

#: What is typed into the search, and a page that has to be among the results.
SEARCHES = {"impute": "how_to/impute", "VAETransformer": "api/", "importance": "guide/"}

PICTURES = (
    "index.html",
    "guide/elbo.html",
    "how_to/impute.html",
    "api/generated/skvae.VAETransformer.html",
    "gallery/index.html",
    "quality.html",
)

# How far text can be read on what is behind it, and how far anything reaches out of the window.
SCRIPT = r"""
() => {
  const parse = (text) => {
    const canvas = (parse.canvas ??= document
      .createElement("canvas")
      .getContext("2d", { willReadFrequently: true }));
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(parse(getComputedStyle(e).backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [1, 1, 1]);
  };
  const least = { contrast: 21, text: "" };
  const main = document.querySelector("main article") ?? document.body;
  const text = "p, li, td, th, h1, h2, h3, dt, dd, a, code, pre, pre span";
  for (const element of main.querySelectorAll(text)) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest(".headerlink, .copybtn, mjx-container")) continue;
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const ground = behind(element);
    const ink = over(parse(getComputedStyle(element).color), ground);
    const [a, b] = [luminance(ink), luminance(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < least.contrast) {
      least.contrast = contrast;
      const words = element.textContent.trim().slice(0, 40);
      least.text = `${element.tagName}.${element.className}: ${words}`;
    }
  }
  return least;
}
"""

# Elements of the page, and lines of text, that reach out of the window and cannot be scrolled to.
OVERFLOW = r"""
() => {
  const width = document.documentElement.clientWidth;
  // A table or a block of code may scroll by itself; not so the text as a whole.
  const scrolls = (e) =>
    e && !e.matches("article, main, body") &&
    (/(auto|scroll)/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const isOut = (box) => box.width > 0 && box.right > width + 1;
  const said = (e) =>
    `${e.tagName.toLowerCase()}.${e.className}: ${e.textContent.trim().slice(0, 40)}`;
  const found = [];
  const main = document.querySelector("main");
  const nodes = document.createTreeWalker(main, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(node);
    const isText = node.nodeType === 3;
    const boxes = isText ? [...range.getClientRects()] : [node.getBoundingClientRect()];
    const parent = node.parentElement;
    if (boxes.some(isOut) && !parent.closest("mjx-assistive-mml, .bd-sidebar-secondary") &&
        !scrolls(isText ? parent : node.parentElement)) {
      found.push(said(isText ? parent : node));
    }
  }
  return found.slice(0, 3);
}
"""

# Of formulas: all there were in the HTML, those that MathJax has set, those set wrongly.
FORMULAS = r"""
async () => {
  const found = document.querySelectorAll("span.math, div.math").length;
  if (!found) return [0, 0, 0];
  await window.MathJax?.startup?.promise; // none where MathJax was not loaded
  await document.fonts.ready;
  const set = [...document.querySelectorAll("mjx-container")];
  const visible = set.filter((e) => e.getBoundingClientRect().width > 1);
  return [found, visible.length, document.querySelectorAll("mjx-merror, [data-mjx-error]").length];
}
"""


class Anchors(HTMLParser):
    """What a page links to and loads, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


def page_names(folder: Path) -> list[str]:
    """Of all pages; what a theme keeps among its scripts is none."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.html"))]
    return [str(path) for path in paths if path.parts[0] != "_static"]


def broken_links(folder: Path) -> Iterator[str]:
    """Of all pages: links within the site whose file or anchor is not there."""
    pages = {folder / name: Anchors(folder / name) for name in page_names(folder)}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            name = path.relative_to(folder)
            if not target.is_file():
                yield f"{name}: no file for the link {link}"
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{name}: no such place: {link}"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the site, on this machine alone."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def chromium() -> str:
    """The browser's path; it is installed if we can."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found:
        return found
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
    how = f"Install it: {' '.join(install)}"
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.exit(f"No Chromium ({', '.join(names)}) is on the PATH. {how} (as root).")
    print("Chromium is not here; Debian's package is installed.", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], install):
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            sys.exit(f"{done.stdout}\n`{' '.join(command)}` failed with {done.returncode}. {how}")
    found = shutil.which("chromium")
    if not found:
        sys.exit("Debian's chromium was installed, and yet there is no `chromium` on the PATH.")
    return found


class Visit:
    """A tab that notes what goes wrong on the page that it shows."""

    def __init__(self, browser: Browser, site: str) -> None:
        self.site = site
        self.faults: list[str] = []
        self.tab: Page = browser.new_page(viewport=DESKTOP)
        self.tab.on("console", self._on_console)
        self.tab.on("pageerror", lambda error: self.faults.append(f"error in a script: {error}"))
        self.tab.on("requestfailed", self._on_failure)
        self.tab.on("response", self._on_response)
        self.tab.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        is_known = message.type == "warning" and message.text.startswith(KNOWN_WARNING)
        if message.type in ("error", "warning") and not is_known:
            self.faults.append(f"console: {message.text}")

    def _on_failure(self, request: Request) -> None:
        # A page that is left asks no more: that is its own doing.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request failed: {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"status {response.status}: {response.url}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.site, "data:", "blob:")):
            self.faults.append(f"asked for something outside of the site: {request.url}")

    def page(self, name: str, pictures: Path | None) -> list[str]:
        """Faults of a page."""
        tab, self.faults = self.tab, []
        tab.set_viewport_size(DESKTOP)
        tab.goto(urljoin(self.site, name), wait_until="load")
        self._set_theme("light")
        n_found, n_set, n_wrong = tab.evaluate(FORMULAS)
        if n_set < n_found or n_wrong:
            self.faults.append(f"{n_found} formulas, {n_set} are set, {n_wrong} with an error")
        self._check_contrast("light")
        if pictures:
            tab.screenshot(path=pictures / f"{Path(name).stem}-desktop.png")
        self._set_theme("dark")
        self._check_contrast("dark")
        if pictures:
            tab.wait_for_timeout(500)  # colours take a moment to change
            tab.screenshot(path=pictures / f"{Path(name).stem}-dark.png")
        self._set_theme("light")
        tab.set_viewport_size(PHONE)
        for wide in tab.evaluate(OVERFLOW):
            self.faults.append(f"wider than a phone: {wide}")
        if pictures:
            tab.screenshot(path=pictures / f"{Path(name).stem}-phone.png")
        return self.faults

    def _check_contrast(self, theme: str) -> None:
        least = self.tab.evaluate(SCRIPT)
        if least["contrast"] < LEAST_CONTRAST:
            self.faults.append(f"{theme}: contrast {least['contrast']:.2f} of {least['text']}")

    def _set_theme(self, theme: str) -> None:
        """By the menu that a reader has."""
        # Of several, which stand where there is room for them.
        button = self.tab.locator(f".theme-change-button[data-mode={theme}]").first
        button.dispatch_event("click")
        if self.tab.locator("html").get_attribute("data-theme") != theme:
            self.faults.append(f"the menu does not lead to the {theme} theme")

    def search(self, words: str, expected: str) -> list[str]:
        """Faults of a search that begins with the button in the head of the first page."""
        tab, self.faults = self.tab, []
        tab.set_viewport_size(DESKTOP)
        tab.goto(self.site, wait_until="load")
        tab.locator(".search-button__button:visible, .search-button:visible").first.click()
        tab.keyboard.type(words)
        tab.keyboard.press("Enter")
        try:
            tab.wait_for_url("**/search.html?*", timeout=20_000)
            tab.wait_for_selector("#search-results ul.search li a", timeout=20_000)
            tab.wait_for_function(
                "(part) => [...document.querySelectorAll('#search-results li a')]"
                ".some((a) => a.href.includes(part))",
                arg=expected,
                timeout=20_000,
            )
        except Exception as error:  # what did not come in time is a fault, whatever it was
            self.faults.append(f"search for {words!r}: no {expected}: {error}")
        return self.faults


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the built site")
    parser.add_argument("--output", type=Path, default=Path("build/docs-test"), help="for pictures")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    names = page_names(folder)
    missing = [name for name in ("index.html", "search.html", *PICTURES) if name not in names]
    if missing:
        sys.exit(f"{folder} has no {', '.join(missing)}: `make docs` builds the site.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    faults = list(broken_links(folder))
    options = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium has none for root
    with served(folder) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        visit = Visit(browser, site)
        for name in names:
            found = visit.page(name, arguments.output if name in PICTURES else None)
            faults += [f"{name}: {fault}" for fault in found]
        for words, expected in SEARCHES.items():
            faults += [f"search: {fault}" for fault in visit.search(words, expected)]
        visit.tab.screenshot(path=arguments.output / "search.png")
        browser.close()
    print("\n".join(faults))
    n_checks = len(names) + len(SEARCHES)
    print(f"{len(names)} pages and {len(SEARCHES)} searches, {len(faults)} faults.")
    return 1 if faults or not n_checks else 0


if __name__ == "__main__":
    sys.exit(main())
