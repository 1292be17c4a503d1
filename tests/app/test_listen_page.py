"""The page in Chromium, used as a listener would."""

import functools
import http.server
import json
import re
import signal
import subprocess
import sys
import threading

import pytest
from pages import serving

from wavelldm.app.listen_report import from_files, gather, report
from wavelldm.app.listen_store import Store

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def enter(page, name="Ada"):
    page.fill("#name", name)
    page.click("#start")
    page.wait_for_selector("#next, #begin, #ending")


def hear(page):
    """Every sound of the question, to its end."""
    for player in page.query_selector_all(".player"):
        player.click()
        page.wait_for_function("node => node.classList.contains('heard') && !node.classList.contains('on')", arg=player)


def rate(page, choice=0):
    """Answer one question and go on."""
    if page.query_selector("input[type=range]"):
        for pick in page.query_selector_all(".pick"):
            pick.click()
            page.wait_for_function("node => node.classList.contains('on')", arg=pick)
        for i, slider in enumerate(page.query_selector_all("input[type=range]")):
            slider.focus()
            for _ in range(1 + i):
                page.keyboard.press("ArrowRight")
    else:
        hear(page)
        page.query_selector_all(".scale button, .choice button")[choice].click()
    page.click("#next")


def train(page):
    while not page.query_selector("#begin"):
        rate(page)
    page.click("#begin")


def finish(page, choice=0):
    count = 0
    while not page.query_selector("#ending"):
        rate(page, choice)
        count += 1
    return count


def all_saved(page):
    page.wait_for_function("() => document.getElementById('saved').textContent === 'all saved'")


def count_label(page):
    return page.inner_text(".count")


@pytest.mark.parametrize("kind", ["acr", "mushra", "ab", "abx"])
def test_a_listener_takes_the_whole_test_and_the_report_has_it(make, visit, kind):
    test = make(kind, clips=2)
    with serving(test) as server:
        page = visit(server.url)
        enter(page)
        assert page.query_selector(".tag")  # practice first
        train(page)
        counted = [t for t in test.trials if not t.practice]
        assert finish(page) == len(counted)
        page.wait_for_function("() => document.getElementById('ending').textContent.includes('are saved')")
        assert page.inner_text("h2") == "Thank you, Ada"
        ((_, name, trials),) = server.store.everything()
        assert name == "Ada" and set(trials) == {t.id for t in counted}
        assert all(answers.pop("done") == 1 and answers for answers in trials.values())
        if kind == "mushra":
            assert all(set(trials[t.id]) == set(t.stimuli) for t in counted)
    found = report(test, gather(test), keep_all=True)
    assert found.listeners == 1 and found.answers == sum(map(len, trials.values()))


def test_nothing_can_be_rated_before_it_was_heard_and_a_double_click_is_one_answer(make, visit):
    test = make("acr")
    with serving(test) as server:
        page = visit(server.url)
        enter(page)
        train(page)
        assert page.is_disabled(".scale button") and page.is_disabled("#next")
        page.keyboard.press("5")
        assert "Listen to the whole sound first" in page.inner_text("#trouble")
        hear(page)
        page.dblclick('.scale button[data-value="4"]')
        page.dblclick("#next")
        assert count_label(page).startswith("Question 2 of") and page.is_disabled("#next")
        all_saved(page)
        ((_, _, trials),) = server.store.everything()
        assert len(trials) == 1 and server.store.counts() == (1, 2)  # the rating, and that it is done


def test_reload_and_a_closed_tab_go_on_where_the_listener_was(make, visit):
    test = make("mushra", clips=2)
    with serving(test) as server:
        page = visit(server.url)
        enter(page)
        train(page)
        rate(page)
        page.query_selector_all(".pick")[1].click()
        page.wait_for_selector(".pick.on")
        slider = page.query_selector("input[type=range]")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        order = [s.get_attribute("data-sound") for s in page.query_selector_all("input[type=range]")]
        page.reload()  # at once
        assert page.inner_text("h2") == "Welcome back"
        page.click("#start")
        page.wait_for_selector("#next")
        assert count_label(page) == "Question 2 of 2"
        assert [s.get_attribute("data-sound") for s in page.query_selector_all("input[type=range]")] == order
        assert [o.inner_text() for o in page.query_selector_all("output")] == ["49", "-", "-", "-", "-"]
        again = page.context.new_page()
        page.close()
        again.goto(server.url)
        again.click("#start")
        again.wait_for_selector("#next")
        assert count_label(again) == "Question 2 of 2"
        assert server.store.counts()[0] == 1


def test_two_listeners_at_once_have_their_own_order_and_their_own_answers(make, visit):
    test = make("acr", checks=False)
    with serving(test) as server:
        pages = [visit(server.url), visit(server.url, **PHONE)]
        for i, page in enumerate(pages):
            enter(page, f"listener {i}")
            train(page)
        for _ in range(4):
            for choice, page in enumerate(pages):
                rate(page, choice)
        for page in pages:
            all_saved(page)
        found = {name: trials for _, name, trials in server.store.everything()}
        assert list(found) == ["listener 0", "listener 1"]
        for choice, trials in enumerate(found.values()):
            assert {v for a in trials.values() for k, v in a.items() if k != "done"} == {5 - choice}
        assert list(found["listener 0"]) != list(found["listener 1"])


def test_offline_in_the_middle_loses_nothing(make, visit):
    test = make("acr")
    with serving(test) as server:
        page = visit(server.url)
        enter(page)
        train(page)
        rate(page, 1)
        all_saved(page)
        page.wait_for_timeout(300)  # the next sounds are fetched ahead
        page.context.set_offline(True)
        rate(page, 2)
        rate(page, 3)
        page.wait_for_function(
            "() => document.getElementById('saved').textContent === '4 answers wait for the connection'"
        )
        assert server.store.counts() == (1, 2)
        page.context.set_offline(False)
        all_saved(page)
        assert server.store.counts() == (1, 6)
        assert json.loads(page.evaluate("localStorage.getItem(Object.keys(localStorage)[0])"))["queue"] == []


def start(test, port):
    command = [sys.executable, "-m", "wavelldm", "listen", "serve", str(test.folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, int(re.search(r":(\d+)/", process.stdout.readline())[1])


def test_a_server_killed_between_two_ratings_loses_nothing(make, visit):
    test = make("acr")
    process, port = start(test, 0)
    try:
        page = visit(f"http://127.0.0.1:{port}/")
        enter(page)
        train(page)
        rate(page, 0)
        all_saved(page)
        page.wait_for_timeout(300)
        process.send_signal(signal.SIGKILL)
        process.wait()
        rate(page, 1)
        page.wait_for_function("() => document.getElementById('saved').textContent.includes('2 answers wait')")
        process, _ = start(test, port)
        rate(page, 2)
        all_saved(page)
    finally:
        process.kill()
        process.wait()
    store = Store(test)
    ((_, _, trials),) = store.everything()
    store.close()
    assert [next(v for k, v in a.items() if k != "done") for a in trials.values()] == [5, 4, 3]


def test_a_hostile_name_and_title_are_shown_as_text(make, visit):
    hostile = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    test = make("ab", title=hostile, clips=1, checks=False)
    with serving(test) as server:
        page = visit(server.url)
        assert page.inner_text("#title") == hostile
        enter(page, hostile)
        train(page)
        finish(page)
        assert page.inner_text("h2") == f"Thank you, {hostile[:80]}"
        page.reload()
        assert page.input_value("#name") == hostile[:80]
        assert page.title() == hostile and not page.query_selector("img")


def test_links_of_invited_listeners_and_doors_that_stay_closed(make, visit):
    test = make("acr")
    with serving(test, open_door=False) as server:
        assert "by invitation" in visit(server.url).inner_text("h2")
        assert "not known" in visit(f"{server.url}#nobody").inner_text("h2")
        page = visit(f"{server.url}#{server.store.invite(1)[0]}")
        enter(page, "Bo")
        train(page)
        rate(page)
        all_saved(page)
        assert [name for _, name, _ in server.store.everything()] == ["Bo"]


def test_the_keyboard_alone_is_enough(make, visit):
    test = make("acr", clips=1, checks=False)
    with serving(test) as server:
        page = visit(server.url)
        page.focus("#start")
        page.keyboard.press("Enter")
        for _ in range(2 + 3):
            page.wait_for_selector("#next, #begin")
            if page.query_selector("#begin"):
                page.keyboard.press("Enter")
            page.wait_for_selector("#next")
            page.keyboard.press("Space")
            page.wait_for_selector(".player.heard:not(.on)")
            page.keyboard.press("2")
            page.keyboard.press("Enter")
        page.wait_for_selector("#ending")
        ((_, _, trials),) = server.store.everything()
        assert [a[k] for a in trials.values() for k in a if k != "done"] == [2, 2, 2]
    pairs = make("abx", "pairs", clips=1, checks=False)
    with serving(pairs) as server:
        page = visit(server.url)
        enter(page)
        for key in "abx":
            page.keyboard.press(key)
            page.wait_for_selector(".player.on")
            page.wait_for_selector(".player.on", state="detached")
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        page.wait_for_selector("#begin")


@pytest.mark.parametrize("kind", ["acr", "mushra", "ab", "abx"])
def test_at_phone_width_nothing_is_cut_off_and_buttons_are_large_enough(make, visit, kind):
    test = make(kind)
    with serving(test) as server:
        page = visit(server.url, **PHONE)
        for step in ("welcome", "question"):
            if step == "question":
                enter(page)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 360, f"{kind}, {step}: {wide} pixels wide"
            for node in page.query_selector_all("button"):
                box = node.bounding_box()
                assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 360
                assert node.evaluate("n => n.scrollWidth <= n.clientWidth + 1"), node.inner_text()


def contrast(page, one, other):
    script = """([a, b]) => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
            const hex = style.getPropertyValue(name).trim().slice(1);
            const part = (i) => { const c = parseInt(hex.slice(i, i + 2), 16) / 255;
                return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
            return 0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4);
        };
        const [x, y] = [light(a), light(b)];
        return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    }"""
    return page.evaluate(script, [one, other])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(make, visit, scheme):
    with serving(make("ab")) as server:
        page = visit(server.url, color_scheme=scheme)
        pairs = [("--ink", "--card"), ("--soft", "--card"), ("--soft", "--paper"), ("--on-accent", "--accent")]
        pairs += [("--warn", "--paper"), ("--good", "--paper"), ("--accent", "--wash")]
        for one, other in pairs:
            assert contrast(page, one, other) >= 4.5, (one, other)  # WCAG 2.2, 1.4.3


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_the_static_page_keeps_answers_through_a_reload_and_gives_a_file_that_the_report_reads(make, visit, tmp_path):
    test = make("acr", clips=1)
    handler = functools.partial(Quiet, directory=str(test.folder / "public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        thread = threading.Thread(target=host.serve_forever, daemon=True)
        thread.start()
        page = visit(f"http://127.0.0.1:{host.server_address[1]}/", accept_downloads=True)
        enter(page, "Cy")
        train(page)
        rate(page, 0)
        page.reload()
        page.click("#start")
        assert count_label(page) == "Question 2 of 4"
        finish(page, 0)
        with page.expect_download() as saved:
            page.click("#save")
        saved.value.save_as(tmp_path / "sent.json")
        host.shutdown()
        thread.join()
    (ratings,) = from_files(test, [tmp_path / "sent.json"])
    assert ratings.name == "Cy" and len(ratings.answers) == 4
    assert {v for a in ratings.answers.values() for k, v in a.items() if k != "done"} == {5}
    assert report(test, [ratings]).left_out == ("file 1",)  # who rates all 5 does so with the bad one, too
