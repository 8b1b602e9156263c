"""The explorer's page in Chromium, from disk and served; skipped where there is no Chromium."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from test_explore import apart, every_step, state, usual_start

import toymodel as tm
from toymodel.explore import content, page, server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(page.html())
    return path.as_uri()


@pytest.fixture
def opened(browser):
    """Opens an address, without any network, and fails where the page reports an error."""
    contexts, wrong = [], []

    def opens(address, **options):
        context = browser.new_context(viewport={"width": 1300, "height": 900}, accept_downloads=True, **options)
        context.route(lambda url: url.startswith("http") and "127.0.0.1" not in url, lambda route: route.abort())
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(60_000)
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        shown.goto(address)
        shown.wait_for_function("RUN !== null")
        return shown

    yield opens
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="module")
def served():
    running = server.made_server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}/"
    running.shutdown()
    running.server_close()


@pytest.fixture
def command():
    """The address at which `toymodel explore` says that it serves; it is ended by Ctrl-C."""
    line = [sys.executable, "-m", "toymodel.cli", "explore", "--no-browser"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield re.search(r"http://\S+", running.stdout.readline())[0]
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130 and "interrupted" in said


def box_of(shown, selector):
    """Where a part of the page is, asked in one step: the timeline is drawn anew whenever something changes."""
    code = "of => { const box = document.querySelector(of).getBoundingClientRect(); return box.toJSON(); }"
    return shown.evaluate(code, selector)


def settled(shown):
    """Waits until the page has drawn its state and put it into its address."""
    shown.wait_for_function("!queued && location.hash.slice(1) === hashOf(STATE)")


def test_every_preset_in_chromium_is_python(opened, file):
    shown = opened(file)
    for name in content.PRESETS:
        model = content.PRESETS[name]()
        found = json.loads(shown.evaluate(f"JSON.stringify({every_step(state(name))})"))
        assert apart(found["record"], tm.descend(model, usual_start(name, model), 2000)) < 1e-9


@pytest.mark.slow
def test_from_the_command_to_persistent_icl_in_three_actions(command, opened):  # the page is closed first
    """1: `toymodel explore`. 2: the mouse goes to the slider of alpha. 3: it is moved to its left end."""
    shown = opened(command)
    assert "Phase: transient ICL" in shown.inner_text("#summary")  # the paper's figure: seed 7, alpha = mu_icl = 0.1
    runs = tm.descend(tm.coopetition(), tm.paper_start(tm.coopetition(), 7), 16_000)
    ends = tm.measure(runs).end.sel(mechanism="icl").item()
    assert f"ends at {ends:,.0f}" in shown.inner_text("#summary")
    box = box_of(shown, "#v-alpha-slider")
    shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    shown.wait_for_function("document.getElementById('summary').textContent.includes('Phase: both')")
    assert "and is learned at the end; CIWL" in shown.inner_text("#summary")


def test_every_control_changes_the_state_and_a_link_brings_it_back(opened, file):
    shown = opened(file)
    shown.click("summary")
    shown.select_option("#add-act", "Clamp")
    settled(shown)
    fields = shown.eval_on_selector_all(
        "#controls input[type=number], #controls input[type=range]", "all => all.map((x) => x.id)"
    )
    assert {
        "v-alpha",
        "v-alpha-slider",
        "v-seed",
        "v-scale",
        "v-steps",
        "v-lr",
        "v-dim_d",
        "v-target_norm_a-slider",
        "v-scale_b",
    } < set(fields)
    for field in fields:
        before = shown.evaluate("JSON.stringify(STATE)")
        if field.endswith("-slider"):
            shown.focus(f"#{field}")
            shown.keyboard.press("ArrowRight")
        else:
            values = {"v-seed": "3", "v-steps": "3000", "v-lr": "0.5", "act-0-at": "100", "act-0-until": "2000"}
            shown.fill(f"#{field}", values.get(field, "7" if "dim" in field else "0.2"))
            shown.keyboard.press("Enter")
        settled(shown)
        assert shown.evaluate("JSON.stringify(STATE)") != before, field
        assert shown.is_hidden("#problem"), (field, shown.inner_text("#problem"))
    chosen = {"start": "aligned", "integrator": "flow", "loss": "icl + ciwl"}
    views = {"time": "log", "loss": "log", "size": "16", "colour": "lifetime", "x": "scale_d"}
    choices = {f"#{name}": value for name, value in chosen.items()}
    for choice, value in {**choices, **{f"[data-view={name}]": value for name, value in views.items()}}.items():
        shown.select_option(choice, value)
    settled(shown)
    told, seen = shown.evaluate("location.hash"), shown.inner_text("#summary")
    other = opened(file + told)
    assert other.inner_text("#summary") == seen
    assert other.evaluate("STATE") == shown.evaluate("STATE")
    shown.click("#reset")
    settled(shown)
    assert shown.evaluate("location.hash") in ("", "#")
    shown.click("#undo")
    settled(shown)
    assert shown.evaluate("location.hash") == told


def test_wrong_numbers_are_said_and_not_taken(opened, file):
    shown = opened(file)
    for field, value in (
        ("v-alpha", "-1"),
        ("v-dim_a", "2.5"),
        ("v-steps", "0"),
        ("v-seed", "1.5"),
        ("v-target_norm_d", "0"),
    ):
        shown.evaluate("document.getElementById('vectors-part').open = true")
        shown.fill(f"#{field}", value)
        shown.keyboard.press("Enter")
        assert "must be" in shown.inner_text("#problem")
    assert shown.evaluate("hashOf(STATE)") == ""
    wrong = opened(f"{file}#preset=none")
    wrong.wait_for_selector("#problem:not([hidden])")
    assert "there is no preset none" in wrong.inner_text("#problem")


def test_interventions_are_dragged_and_moved_by_keys(opened, file):
    shown = opened(file + "#interventions=Block(%22ciwl%22, at=2000, until=6000)")
    settled(shown)

    def dragged(part, share):
        box = box_of(shown, f"#timeline [data-part={part}]")
        wide = shown.evaluate("TIME.to - TIME.from") * share
        shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        shown.mouse.down()
        shown.mouse.move(box["x"] + box["width"] / 2 + wide, box["y"] + box["height"] / 2, steps=4)
        shown.mouse.up()
        settled(shown)
        return shown.evaluate("[STATE.acts[0].at, STATE.acts[0].until]")

    at, until = dragged("both", 0.25)
    assert abs(at - 6000) < 60 and until - at == 4000
    assert abs(dragged("at", -0.125)[0] - (at - 2000)) < 60
    assert dragged("until", 1.0)[1] is None
    shown.locator("#timeline [data-part=at]").focus()
    before = shown.evaluate("STATE.acts[0].at")
    shown.keyboard.press("ArrowRight")
    settled(shown)
    shown.keyboard.press("ArrowRight")
    settled(shown)
    assert shown.evaluate("STATE.acts[0].at") == before + 160
    assert shown.input_value("#act-0-at") == str(before + 160)
    told = {}
    exec(shown.inner_text("#python").replace("print(", "str("), told)
    assert told["runs"].attrs["interventions"] == f'Block("ciwl", at={before + 160})'.replace('"', "'")


def test_a_click_in_the_diagram_shows_that_run(opened, file):
    shown = opened(file + "#steps=8000&view.size=16")
    shown.wait_for_function("DIAGRAM.cells.size === 256")
    shown.locator("#diagram").scroll_into_view_if_needed()
    box = box_of(shown, "#diagram")
    for across, up in ((0.2, 0.3), (0.6, 0.75), (0.8, 0.5)):
        shown.mouse.click(box["x"] + across * box["width"], box["y"] + up * box["height"])
        settled(shown)
        values = shown.evaluate("[STATE.values.alpha, STATE.values.mu_icl]")
        at = "axisValues(STATE.view, '{}').indexOf(STATE.values.{})".format
        i, j = shown.evaluate(f"[{at('x', 'alpha')}, {at('y', 'mu_icl')}]")
        cell = shown.evaluate(f"DIAGRAM.cells.get({j} * 16 + {i})")
        model = tm.coopetition(alpha=values[0], mu_icl=values[1])
        known = tm.measure(tm.descend(model, tm.paper_start(model, 7), 8000))
        assert cell["phase"] == shown.evaluate("RUN.measures.phase") == known.phase.item()
    shown.focus("#diagram")
    shown.keyboard.press("ArrowUp")
    shown.keyboard.press("ArrowLeft")
    assert "mu_icl" in shown.inner_text("#diagram-said")
    shown.keyboard.press("Enter")
    settled(shown)
    assert shown.evaluate("STATE.values.alpha") == shown.evaluate("axisValues(STATE.view, 'x')[6]")


def test_plots_are_saved(opened, file, tmp_path):
    shown = opened(file + "#alpha=0.05")
    for kind, begins in (("SVG", b"<svg"), ("PNG", b"\x89PNG"), ("CSV", b"time,loss,loss_icl")):
        with shown.expect_download() as waiting:
            shown.click(f"[data-of=losses] [data-kind={kind}]")
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        assert path.read_bytes().startswith(begins), kind
    record = np.genfromtxt(tmp_path / "losses.csv", delimiter=",", names=True)
    model = tm.coopetition(alpha=0.05)
    runs = tm.descend(model, tm.paper_start(model, 7), 16_000).sel(time=record["time"])
    assert abs(record["loss_icl"] - runs.loss_icl.values).max() < 1e-9


def test_every_control_has_a_name_and_nothing_is_wider_than_a_phone(opened, file):
    shown = opened(file + "#interventions=Change(loss=%22ciwl%22, until=900); Clamp(%22d%22)", has_touch=True)
    named = (
        "x.labels?.length || x.getAttribute('aria-label') || x.getAttribute('aria-labelledby') || x.textContent.trim()"
    )
    every = "[...document.querySelectorAll('input, select, button, [tabindex=\"0\"]')]"
    nameless = f"{every}.filter((x) => !({named})).map((x) => x.outerHTML)"
    assert shown.evaluate(nameless) == []
    for width in (390, 320):
        shown.set_viewport_size({"width": width, "height": 800})
        shown.wait_for_timeout(200)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate("document.documentElement.lang") == "en"


def test_the_served_page_says_what_model_refuses(opened, served):
    shown = opened(served + "#view.size=16")
    shown.fill("#loss-text", "icl +")
    shown.click("#use-loss")
    shown.wait_for_selector("#problem:not([hidden])")
    assert "loss is not an expression" in shown.inner_text("#problem")
    shown.wait_for_function("DIAGRAM.cells.size === 256")
    model = tm.coopetition(alpha=1e-3, mu_icl=1.0)
    known = tm.measure(tm.descend(model, tm.paper_start(model, 7), 16_000)).phase.item()
    assert shown.evaluate("DIAGRAM.cells.get(15 * 16).phase") == known


@pytest.mark.slow
def test_the_served_page_takes_a_loss_as_text(opened, served):
    shown = opened(served + "#steps=4000&view.size=16")
    shown.fill("#loss-text", "icl * ciwl + beta * cost")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#v-beta")
    shown.fill("#v-beta", "0.02")
    shown.keyboard.press("Enter")
    settled(shown)
    shown.wait_for_function("DIAGRAM.cells.size === 256")
    told = {}
    exec(shown.inner_text("#python").replace("print(", "str("), told)
    assert tm.measure(told["runs"]).phase.item() == shown.evaluate("RUN.measures.phase")
    i, j = shown.evaluate("[STATE.view.x, STATE.view.y]")
    values = shown.evaluate("[axisValues(STATE.view, 'x')[5], axisValues(STATE.view, 'y')[9]]")
    here = shown.evaluate(f"measuredAt(STATE, {{{i}: {values[0]}, {j}: {values[1]}}}, PRESETS).phase")
    assert shown.evaluate("DIAGRAM.cells.get(9 * 16 + 5).phase") == here
    again = opened(shown.evaluate("location.href"))
    again.wait_for_selector("#v-beta")
    assert again.inner_text("#summary") == shown.inner_text("#summary")


def test_the_server_answers_its_own_page_only(served):
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    for headers, data in (({"Host": "evil.example"}, None), ({"Content-Type": "text/plain"}, b"{}")):
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(f"{served}loss" if data else served, data, headers))
        assert refused.value.code in (400, 403)
        refused.value.close()


def test_predictions_of_theory_are_drawn(opened, file, served):
    shown = opened(served + "#start=aligned&view.size=16")
    shown.wait_for_function("PREDICTED !== null")
    settled(shown)
    assert "Theory: ICL emerges at" in shown.inner_text("#theory") and "ICL ends at" in shown.inner_text("#theory")
    assert shown.locator("#losses text", has_text="ICL ends").count() == 1
    lasts = tm.theory.lifetime(tm.coopetition(), tm.aligned_start(tm.coopetition())).lifetime.item()
    assert shown.evaluate("RUN.theory.end - RUN.theory.emergence.icl") == pytest.approx(lasts)
    alone = opened(file)
    assert "Theory: ICL emerges at 4,661" in alone.inner_text("#theory")  # the run: 4,667
    blocked = opened(file + "#interventions=Block(%22ciwl%22)")
    assert "no prediction" in blocked.inner_text("#theory")
