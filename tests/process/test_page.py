"""The page in a browser, of a whole daemon: sizes, schemes, without its script, with a token, by the keyboard."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.running import Daemon, running, until
from tests.process.test_http import TOKEN, free_port, get
from tests.service.looking import EVIL, month

pytestmark = pytest.mark.slow

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, without a window; it logs each request and each line of its console."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("there is no chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, str]]:
    """One that has kept its tree for a month, and the address of its page."""
    base, port = tmp_path_factory.mktemp("page"), free_port()
    month(base / "datad", time.time())
    with running(base, f"http.listen = '127.0.0.1:{port}'") as found:
        yield found, f"http://127.0.0.1:{port}/"


def told(browser: Any) -> list[str]:
    """What its console said since the last look."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requested(browser: Any) -> set[str]:
    """The addresses that it asked for since the last look, but for what a page carries in itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return {url for url in urls if not url.startswith("data:")}


def emulate(browser: Any, size: str = "desktop", scheme: str = "light", script: bool = True) -> None:
    """Have it look like another machine."""
    width, height = SIZES[size]
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    told(browser)
    requested(browser)


def text(browser: Any) -> str:
    """What a person reads."""
    found: str = browser.find_element("tag name", "body").text
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_schemes(browser: Any, daemon: tuple[Daemon, str], size: str, scheme: str) -> None:
    """It fits, in the colours that were asked for; nothing is on the console, nothing was fetched from elsewhere, and
    axe finds nothing that is serious."""
    from axe_core_python.selenium import Axe

    _, url = daemon
    emulate(browser, size, scheme)
    browser.get(url)
    shown = text(browser)
    assert EVIL in shown
    assert "context truncated: state/agents/a<i>.json" in shown
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back.removeprefix("rgb(").rstrip(")").split(","))) < 380) is (scheme == "dark")
    assert [] == told(browser)
    assert {url} == requested(browser)
    violations = Axe().run(browser)["violations"]
    assert [] == [(one["id"], one["nodes"][0]["html"][:200]) for one in violations if one["impact"] in SERIOUS]


def test_without_its_script(browser: Any, daemon: tuple[Daemon, str]) -> None:
    """It reads the same, offers nothing that would not work, and the search goes by a plain form."""
    _, url = daemon
    emulate(browser, script=False)
    browser.get(url)
    assert EVIL in text(browser)
    assert not browser.find_element("id", "pause").is_displayed()
    browser.find_element("name", "q").send_keys("had gone")
    browser.find_element("css selector", "form button").click()
    until(lambda: "q=had+gone" in browser.current_url, 20.0)
    shown = browser.find_element("id", "events-now").text
    assert "recreated directory state" in shown
    assert EVIL not in shown
    assert "had gone" == browser.find_element("name", "q").get_attribute("value")
    assert [] == told(browser)


def test_it_refreshes_itself(browser: Any, daemon: tuple[Daemon, str]) -> None:
    """What the guard repairs shows without a reload, unless it was stopped; the console stays silent."""
    found, url = daemon
    emulate(browser)
    browser.get(url)
    browser.execute_script("window.mark = 1")
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    (found.root / "logs").chmod(0o700)

    def shown() -> bool:
        browser.execute_script(look)
        return "restored permissions logs: mode was 0o700" in text(browser)

    until(shown, 30.0)
    assert 1 == browser.execute_script("return window.mark")
    pause = browser.find_element("id", "pause")
    pause.click()
    assert "Refresh again" == pause.text
    requested(browser)
    browser.execute_script(look)
    assert set() == requested(browser)
    assert [] == told(browser)


def test_by_keyboard(browser: Any, daemon: tuple[Daemon, str]) -> None:
    """The first stop skips to the content; the search is reached and sent without a mouse; landmarks are there."""
    from selenium.webdriver.common.keys import Keys

    _, url = daemon
    emulate(browser)
    browser.get(url)
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert ("skip", True) == (first.get_attribute("class"), first.is_displayed())
    first.send_keys(Keys.ENTER)
    until(lambda: browser.switch_to.active_element.get_attribute("id") == "main", 20.0)
    stops: list[str] = []
    while "q" not in stops and len(stops) < 20:
        browser.switch_to.active_element.send_keys(Keys.TAB)
        stops.append(browser.switch_to.active_element.get_attribute("name"))
    browser.switch_to.active_element.send_keys("had gone", Keys.ENTER)
    until(lambda: "q=had+gone" in browser.current_url, 20.0)
    for landmark in ("header", "main", "footer", "form[role=search]"):
        assert 1 == len(browser.find_elements("css selector", landmark))


def test_with_a_token(browser: Any, tmp_path: Path) -> None:
    """A browser gives it as a password, for the page and for what refreshes it; without it nobody sees anything."""
    port = free_port()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    with running(tmp_path, f"http.listen = '127.0.0.1:{port}'\nhttp.token_file = '{tmp_path}/token'"):
        assert (401, "Unauthorized\n") == get(port, "/")
        emulate(browser)
        browser.get(f"http://me:{TOKEN}@127.0.0.1:{port}/")
        assert "is kept by process" in text(browser)
        before = browser.find_element("id", "as-of").text

        def refreshed() -> bool:
            browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
            return bool(before != browser.find_element("id", "as-of").text)

        until(refreshed, 30.0)
        assert [] == told(browser)
