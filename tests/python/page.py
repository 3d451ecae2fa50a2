"""The page of `coda-serve` in a headless Chromium: fills holes, shows steps, fits narrow and wide windows."""

from __future__ import annotations

import re
from pathlib import Path

from browser import Browser
from coda_shards.difference import holds, same
from playwright.sync_api import Page, expect, sync_playwright
from serving import server, write_model

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
WINDOWS = (("light", 1200, 800, None), ("dark", 390, 900, "secret"))
TIMEOUT = 30_000


def check_page(program: Path, browser: Browser, work: Path) -> str:
    """A light, wide window on an open server, and a dark, narrow one on a server that wants a key."""
    write_model(work / "tiny")
    with sync_playwright() as play:
        for scheme, width, height, key in WINDOWS:
            with server(program, work / "tiny", key) as address:
                context = play.chromium.launch_persistent_context(
                    work / scheme, executable_path=browser.program, env={**browser.variables},
                    args=FLAGS, bypass_csp=False, viewport={"width": width, "height": height},
                    color_scheme="light" if scheme == "light" else "dark",
                )  # fmt: skip
                version = context.browser.version if context.browser else browser.program.name
                use(context.new_page(), address, key, work / f"{scheme}.png")
                context.close()
    return f"the page fills holes in Chromium {version}, wide and narrow, with and without a key"


def use(page: Page, address: str, key: str | None, picture: Path) -> None:
    """Everything that a person can do on the page."""
    page.set_default_timeout(TIMEOUT)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto(address)
    state, cells, masked = page.locator("#state"), page.locator(".cell"), page.locator(".cell.masked")
    if key is None:
        expect(page.locator("#model")).to_have_text("tiny")
        expect(page.locator("#key-label")).to_be_hidden()
    else:
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        expect(state).to_have_class("bad")
        with page.expect_response(re.compile("/v1/completions$")):
            page.click("#fill")
        expect(page.locator("#fill")).to_be_enabled()
        expect(page.locator("#model")).to_have_text("The model")
        # The name comes with the key, before anything is filled.
        page.fill("#key", key)
        page.press("#key", "Enter")
        expect(page.locator("#model")).to_have_text("tiny")
        expect(state).to_have_text("")
        # The browser itself notes each answer 401: asked without a key, and twice with a wrong one.
        same("refusals", len([error for error in errors if "401" in error]), 3)
        errors.clear()
    page.click("#fill")
    expect(state).to_have_text(re.compile("^Done: .* 8 tokens, 0 left"), timeout=TIMEOUT)
    expect(masked).to_have_count(0)
    expect(cells).to_have_count(8)
    scrub = page.locator("#scrub")
    same("where the range stands", scrub.input_value(), scrub.get_attribute("max"))
    holds("there were several steps", int(scrub.input_value()) > 1)
    holds("a token tells its probability", "probability" in (cells.first.get_attribute("title") or ""))
    page.screenshot(path=picture, full_page=True)
    scrub.focus()
    page.keyboard.press("Home")
    expect(masked).to_have_count(8)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cell.new")).not_to_have_count(0)
    # A second hole, at the beginning.
    page.locator("#code").focus()
    page.keyboard.press("Control+Home")
    page.fill("#size", "5")
    page.click("#hole")
    page.fill("#threshold", "0.01")
    page.click("#fill")
    expect(state).to_have_text(re.compile("^Done: .* 13 tokens, 0 left"), timeout=TIMEOUT)
    # A long one, stopped on the way.
    page.fill("#code", "a ⟦1500⟧ b")
    page.fill("#threshold", "1")
    page.select_option("#cache", "none")
    page.click("#fill")
    page.click("#stop")
    expect(state).to_have_text("Stopped.")
    page.fill("#code", "no hole")
    page.click("#fill")
    expect(state).to_have_text(re.compile("^There is no hole yet"))
    wide = page.locator("html").evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    holds("nothing reaches beyond the window", bool(wide))
    same("errors of the page", errors, [])
