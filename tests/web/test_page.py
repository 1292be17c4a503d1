"""The page as a whole: without a network, on a phone, and to whom it talks."""

import json
import re

import numpy as np
import pytest
import soundfile as sf
from signals import noisy, speechlike

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.fixture
def talk(tmp_path):
    sf.write(tmp_path / "talk.wav", 0.3 * noisy(speechlike(1.0, 16_000), 5.0), 16_000)
    return tmp_path / "talk.wav"


def cleaned(page, talk) -> np.ndarray:
    page.set_input_files("#file", talk)
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as download:
        page.click("#download")
    return sf.read(download.value.path())[0]


def test_it_works_without_a_network_and_talks_to_nobody_else(visit, server, talk):
    page = visit()
    asked = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.evaluate("navigator.serviceWorker.ready")
    page.reload()
    first = cleaned(page, talk)
    server.files, kept = {}, server.files  # from now on it answers nothing but 404
    try:
        page.context.set_offline(True)
        page.reload()
        assert page.evaluate("crossOriginIsolated")
        assert page.evaluate("navigator.serviceWorker.controller !== null")
        np.testing.assert_array_equal(cleaned(page, talk), first)
    finally:
        server.files = kept
    outside = {url for url in asked if not url.startswith((server.address, f"blob:{server.address}"))}
    assert len(asked) > 8 and outside == set()


def test_a_request_to_another_origin_is_stopped(visit, server):
    page = visit("build.json")
    elsewhere = server.address.replace("localhost", "127.0.0.1")
    found = page.evaluate(f"fetch('{elsewhere}main.js', {{ mode: 'no-cors' }}).then(() => 'came', () => 'stopped')")
    assert found == "stopped"
    assert visit.faults and all("Content Security Policy" in fault for fault in visit.faults)
    visit.faults.clear()


def test_it_can_be_installed(visit, server):
    page = visit()
    session = page.context.new_cdp_session(page)
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == [] and json.loads(manifest["data"])["display"] == "standalone"
    page.evaluate("navigator.serviceWorker.ready")
    problems = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [p["errorId"] for p in problems if p["errorId"] != "in-incognito"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["file", "live", "codes"])
def test_it_fits_a_phone_and_can_be_read(visit, talk, scheme, tab):
    page = visit(color_scheme=scheme, **PHONE)
    page.set_input_files("#file", talk)
    page.wait_for_selector("#recording:not([hidden])")
    page.tap(f"#tab-{tab}")
    page.evaluate("document.querySelector('#codes-open').hidden = false")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    targets = page.evaluate(
        """[...document.querySelectorAll('button, select, .switch label')].filter((x) => x.offsetParent)
        .map((x) => [x.textContent.trim(), x.getBoundingClientRect().height])"""
    )
    assert len(targets) >= 4 and min(height for _, height in targets) >= 40, targets
    pairs = page.evaluate(
        """[...document.querySelectorAll('h1, p, label, button, dt, dd, figcaption, legend, output')]
        .filter((x) => x.offsetParent && x.textContent.trim() && !x.disabled && !x.closest('.waiting')
          && !x.querySelector('input:disabled'))
        .map((x) => {
          let y = x;
          while (getComputedStyle(y).backgroundColor === 'rgba(0, 0, 0, 0)') y = y.parentElement;
          return [x.textContent.trim().slice(0, 20), getComputedStyle(x).color, getComputedStyle(y).backgroundColor];
        })"""
    )
    for text, ink, ground in pairs:
        assert contrast(ink, ground) >= 4.5, (text, ink, ground)


def contrast(one: str, other: str) -> float:
    """Of two colours (WCAG 2.2, contrast ratio)."""

    def light(colour: str) -> float:
        parts = np.array([float(x) for x in re.findall(r"[\d.]+", colour)[:3]]) / 255
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    low, high = sorted([light(one), light(other)])
    return (high + 0.05) / (low + 0.05)


def test_everything_has_a_name_for_who_cannot_see_it(visit, talk):
    page = visit()
    page.set_input_files("#file", talk)
    page.wait_for_selector("#recording:not([hidden])")
    for tab in ("file", "live", "codes"):
        page.click(f"#tab-{tab}")
        page.evaluate("document.querySelector('#codes-open').hidden = false")
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        controls = {"button", "slider", "radio", "checkbox", "combobox", "tab", "tabpanel", "img", "image", "meter"}
        seen = [n for n in tree if not n.get("ignored") and n["role"]["value"] in controls]
        nameless = [n["role"]["value"] for n in seen if not n.get("name", {}).get("value", "").strip()]
        assert len(seen) > 8
        assert nameless == []


def test_a_browser_without_simd_gets_a_sentence(visit, talk):
    page = visit(service_workers="block")

    def without(route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body="WebAssembly.validate = () => false;" + answer.text())

    page.route("**/worker.js", without)
    page.set_input_files("#file", talk)
    page.wait_for_selector("#file-message:not([hidden])")
    assert "WebAssembly SIMD" in page.inner_text("#file-message")


@pytest.mark.parametrize("damage", [lambda data: data[:5000], lambda data: b"<html>" * 1000])
def test_a_damaged_graph_gets_a_sentence(visit, talk, damage):
    page = visit(service_workers="block")
    page.route("**/*.onnx", lambda route: route.fulfill(body=damage(route.fetch().body())))
    page.set_input_files("#file", talk)
    page.wait_for_selector("#file-message:not([hidden])")
    assert "is no graph of this program" in page.inner_text("#file-message")
