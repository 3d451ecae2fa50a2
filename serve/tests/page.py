"""The page of `coda-serve` in headless Chromium: fills holes, shows steps, fits narrow and wide windows.

    pip install playwright==1.65.2
    python3 serve/tests/page.py target/release/coda-serve runs/quickstart/post /usr/bin/chromium OUT

Writes pictures into OUT. Run by hand: continuous integration has no browser.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def use(page: Page, address: str, pictures: Path, name: str) -> None:
    """Everything that a person can do on the page."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto(address)
    expect(page.locator("#model")).to_have_text("coda")
    expect(page.locator("#key-label")).to_be_hidden()
    page.click("#fill")
    state = page.locator("#state")
    expect(state).to_have_text(re.compile("^Done: .* 8 tokens, 0 left"), timeout=60_000)
    expect(page.locator(".cell.masked")).to_have_count(0)
    expect(page.locator(".cell")).to_have_count(8)
    scrub = page.locator("#scrub")
    assert scrub.input_value() == scrub.get_attribute("max") != "0", "the range stands at its end"
    page.screenshot(path=pictures / f"{name}.png", full_page=True)
    scrub.focus()
    page.keyboard.press("Home")
    expect(page.locator(".cell.masked")).to_have_count(8)
    # A second hole, at the beginning.
    page.locator("#code").focus()
    page.keyboard.press("Control+Home")
    page.fill("#size", "5")
    page.click("#hole")
    page.fill("#threshold", "0.2")
    page.click("#fill")
    expect(state).to_have_text(re.compile("^Done: .* 13 tokens, 0 left"), timeout=60_000)
    page.fill("#code", "no hole")
    page.click("#fill")
    expect(state).to_have_text(re.compile("^There is no hole yet"))
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert page.locator("html").evaluate(f"() => {wide}"), "nothing reaches beyond the window"
    assert not errors, errors


def main() -> None:
    """Light and wide, dark and narrow."""
    program, model, chromium, pictures = map(Path, sys.argv[1:])
    pictures.mkdir(parents=True, exist_ok=True)
    command = [program, "--checkpoint", model, "--model", "coda", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    told = (line for line in server.stderr if " at http" in line)
    address = next(told).split(" at ")[-1].strip()
    try:
        with sync_playwright() as play, tempfile.TemporaryDirectory() as profile:
            for name, width, height in (("light", 1200, 800), ("dark", 390, 900)):
                browser = play.chromium.launch_persistent_context(
                    Path(profile) / name, executable_path=chromium, args=FLAGS, bypass_csp=False,
                    viewport={"width": width, "height": height},
                    color_scheme="light" if name == "light" else "dark",
                )  # fmt: skip
                use(browser.new_page(), address, pictures, name)
                browser.close()
    finally:
        server.terminate()
        assert server.wait(30) == 0
    print("the page fills holes in a light, wide window and in a dark, narrow one")


if __name__ == "__main__":
    main()
