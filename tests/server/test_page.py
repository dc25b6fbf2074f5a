"""The page in a real browser: a tiny model draws, and somebody looks, clicks and types."""

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi")

from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.page_files import contents
from sdcore.server.worker import Worker
from tests.server.conftest import live
from tests.server.visit import DONE, Visit

api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CANVAS = "document.querySelector('.lane-A canvas.plate').toDataURL()"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, port: int) -> Iterator[Visit]:
    visit = Visit(browser, port)
    yield visit
    visit.close()


@needs_browser
def test_it_draws_and_scrubs_back_to_the_same_bytes(visit: Visit) -> None:
    visit.draw()
    for view in "12345":
        visit.press("Home", view)
        down = [visit.page.evaluate(CANVAS)]
        for _ in range(5):
            visit.press("ArrowRight")
            down.append(visit.page.evaluate(CANVAS))
        back = [down[-1]]
        for _ in range(5):
            visit.press("ArrowLeft")
            back.append(visit.page.evaluate(CANVAS))
        assert back[::-1] == down
        assert len(set(down)) > 1
    strip = visit.page.locator(".strip.lane-A canvas")
    assert strip.count() == 6
    assert "step 1 of 6" in visit.page.get_attribute("#scrub", "aria-valuetext")


@needs_browser
def test_a_branch_with_nothing_changed_is_the_same_picture(visit: Visit) -> None:
    visit.draw()
    visit.press("Home", "ArrowRight", "b")
    visit.page.click("dialog button.primary")
    visit.page.wait_for_selector(f"#tree ul {DONE}")
    visit.press("Home", "ArrowRight", "ArrowRight", "b")
    visit.page.select_option("#d-scheduler", "heun")
    visit.page.fill("#d-cfg", "2")
    visit.page.click("dialog button.primary")
    visit.page.wait_for_selector(f"#tree ul ul {DONE}")
    whole, same, other = visit.runs()
    assert (same["changes"], same["taken"]) == ({}, 2)
    assert (other["parent"], other["taken"]) == (same["id"], 1)  # of its own: the third of all
    assert other["changes"] == {"scheduler": "heun", "cfg": 2}
    pictures = [
        visit.page.request.get(f"{visit.home}/runs/{run['id']}/picture.png").body()
        for run in (whole, same, other)
    ]
    assert pictures[0] == pictures[1] != pictures[2]
    assert visit.page.locator(".strip.lane-A canvas.taken").count() == 3
    visit.press("u", "u")
    assert visit.page.locator(".run").count() == 1


@needs_browser
def test_what_is_copied_is_what_the_server_wrote(browser: Any, port: int) -> None:
    visit = Visit(browser, port, permissions=["clipboard-read", "clipboard-write"])
    visit.draw('it\'s "red"')
    (run,) = visit.runs()
    said = visit.ask(f"/runs/{run['id']}")
    for button, text in (("#copy-command", said["command"]), ("#copy-python", said["python"])):
        visit.page.click(button)
        visit.page.wait_for_selector("#notes .note:has-text('copied')")
        assert visit.page.evaluate("navigator.clipboard.readText()") == text
        visit.page.click("#notes button")
    assert said["command"].startswith("sdcore sample")
    visit.close()


@needs_browser
@pytest.mark.usefixtures("slow_steps")
def test_what_is_drawn_can_be_cancelled(visit: Visit) -> None:
    visit.page.fill("#f-steps", "150")
    visit.page.select_option("#f-scheduler", "euler")
    visit.page.click("#draw")
    fourth = visit.page.locator(".strip.lane-A canvas").nth(3)
    fourth.wait_for(state="attached")
    visit.page.wait_for_selector(".lane-A h2 small:has-text('euler')")  # its settings are known
    visit.page.focus("#study")
    visit.press("c")  # at equal cost to the whole of it
    assert "300 NFE" in visit.page.inner_text("dialog")
    visit.press("Escape")
    assert visit.page.locator("dialog").count() == 0
    visit.page.reload()  # a run does not end with its page, nor is it out of reach
    fourth.wait_for(state="attached")
    visit.page.focus("#study")
    visit.press("Escape")
    visit.page.wait_for_selector(".run[data-state=cancelled]")
    assert visit.page.is_disabled("#cancel")
    (run,) = visit.runs()
    assert 3 < run["steps"] < 150
    visit.press("End", "b")  # what there is of it can still be looked at, and gone on from
    assert visit.page.inner_text("dialog h2") == "Branch here"


@needs_browser
def test_what_is_no_number_is_told_once_until_it_is_one(visit: Visit) -> None:
    """A browser gives such a field as an empty one."""
    visit.page.focus("#f-steps")
    visit.page.keyboard.type("1e")
    visit.page.wait_for_selector("#plan.wrong:has-text('Steps: a number is wanted')")
    for _ in range(2):
        visit.page.click("#draw")
    assert visit.page.locator("#notes .wrong").count() == 1
    assert visit.runs() == []
    visit.draw()
    assert visit.page.locator("#notes .wrong").count() == 0


@needs_browser
def test_it_comes_back_with_the_server(browser: Any, tiny_models: Models) -> None:
    workers = [Worker(tiny_models, Limits()) for _ in range(2)]
    with ExitStack() as stack:
        port = stack.enter_context(live(workers[0]))
        visit = Visit(browser, port)
        visit.draw()
        there = visit.page.evaluate(CANVAS)
        stack.close()
        visit.page.wait_for_selector("#link[data-state=away]")
        visit.press("Home", "End")
        assert visit.page.evaluate(CANVAS) == there  # its steps are the page's own
        visit.page.click("#draw")
        visit.page.wait_for_selector("#notes .wrong:has-text('does not answer')")
        stack.enter_context(live(workers[1], at=port))
        visit.page.wait_for_selector("#link[data-state=here]")
        visit.page.wait_for_selector("#notes .note:has-text('is back')")
        assert visit.page.is_disabled("#branch")  # the new server knows nothing of that run
        visit.draw("a blue boat")
        assert [run["prompt"] for run in visit.runs()] == ["a blue boat"]
        visit.close(but="ERR_CONNECTION_REFUSED|ERR_EMPTY|ERR_CONNECTION_RESET|INCOMPLETE_CHUNKED")
    for worker in workers:
        worker.stop()


@needs_browser
def test_html_in_a_prompt_stays_text(visit: Visit) -> None:
    prompt = "<img src=x onerror=\"document.title='evil'\"><script>document.title='evil'</script>"
    visit.draw(prompt)
    assert prompt in visit.page.inner_text(".lane-A h2 .prompt")
    assert visit.page.inner_text(".run .prompt") == prompt
    assert visit.page.locator("script").count() == 1
    assert visit.page.title().startswith("sdcore")


@needs_browser
def test_the_policy_holds(visit: Visit) -> None:
    """Neither a script in the page nor a request to elsewhere."""
    ran = visit.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        return Boolean(window.ran);
    }""")
    elsewhere = visit.page.evaluate("fetch('http://localhost:1/').then(() => 'sent', String)")
    image = visit.page.evaluate("""() => new Promise((answer) => {
        document.addEventListener("securitypolicyviolation", (e) => answer(e.effectiveDirective));
        new Image().src = "http://localhost:1/x.png";
    })""")
    assert (ran, "Failed to fetch" in elsewhere, image) == (False, True, "img-src")
    assert all("violates" in each or "Content Security" in each for each in visit.errors)
    visit.errors.clear()
    visit.requests.clear()


@needs_browser
def test_at_360_pixels_nothing_is_cut(browser: Any, port: int) -> None:
    visit = Visit(browser, port, viewport={"width": 360, "height": 740}, color_scheme="dark")
    wide = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert visit.page.evaluate(wide) <= 360
    visit.draw("averylongwordthatisnotbroken" * 4)
    for summary in visit.page.locator("details > summary").all():
        summary.click()
    assert visit.page.evaluate(wide) <= 360
    visit.press("c")
    box = visit.page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    visit.page.click("dialog button.primary")
    visit.page.wait_for_selector(".lane-B .caption:has-text('decoded')")
    assert visit.page.evaluate(wide) <= 360
    visit.close()


@needs_browser
def test_by_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    visit.press("/")
    page.keyboard.press("Control+a")
    page.keyboard.type("a blue tree")
    visit.press("Control+Enter")
    page.wait_for_selector(DONE)
    visit.press("Tab")  # out of the prompt, where letters are words
    visit.press("Home", "?")
    assert "Keys" in page.inner_text("dialog h2 >> nth=0")
    visit.press("Escape")
    assert page.locator("dialog").count() == 0
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("""() => {
            const at = document.activeElement;
            return at.id || at.dataset.run || at.getAttribute("role") || at.className || at.tagName;
        }""")
        )
    buttons = {"draw", "branch", "compare", "decode", "copy-command", "copy-python", "save"}
    more = {"save-state", "reuse", "scrub", "play", "measure", "undo", "theme", "help", "radio"}
    assert buttons | more <= seen
    assert visit.runs()[0]["id"] in seen
    page.focus("#study")
    visit.press("Home", "b", "Enter")
    page.wait_for_selector(f"#tree ul {DONE}")
    page.focus("#study")
    visit.press("u", "d")
    assert page.get_attribute("#decode", "aria-pressed") == "true"


@pytest.mark.slow
@needs_browser
def test_what_is_painted_is_told_in_words(visit: Visit) -> None:
    visit.draw()
    visit.press("Home")
    for each in visit.page.locator("canvas, svg, img").all():
        if not each.is_visible():
            continue
        words = each.get_attribute("aria-label") or each.get_attribute("alt")
        hidden = each.evaluate("e => Boolean(e.closest('[aria-hidden=true]')) || e.alt === ''")
        assert words or hidden, each.evaluate("e => e.outerHTML.slice(0, 200)")
    label = visit.page.get_attribute(".lane-A canvas.plate", "aria-label")
    assert re.match(r"x0 of step 1 of 6, sigma [\d.]+: latents 4 by 4, root mean square", label)
    visit.page.click("#table summary")
    assert visit.page.locator("#table tbody tr").count() == 6


@needs_browser
def test_a_dropped_picture_loads_its_settings(visit: Visit) -> None:
    visit.draw("a green tree", steps=5, scheduler="heun")
    (run,) = visit.runs()
    visit.page.fill("#f-prompt", "something else")
    visit.page.fill("#f-steps", "9")
    visit.page.evaluate(
        """async (path) => {
        const blob = await (await fetch(path)).blob();
        const files = new DataTransfer();
        files.items.add(new File([blob], "tree.png", {type: "image/png"}));
        for (const name of ["dragover", "drop"]) {
            const how = {dataTransfer: files, bubbles: true, cancelable: true};
            dispatchEvent(new DragEvent(name, how));
        }
    }""",
        f"/runs/{run['id']}/picture.png",
    )
    visit.page.wait_for_selector("#notes .note:has-text('tree.png')")
    values = {
        name: visit.page.input_value(f"#f-{name}") for name in ("prompt", "steps", "scheduler")
    }
    assert values == {"prompt": "a green tree", "steps": "5", "scheduler": "heun"}
    visit.page.focus("#study")
    visit.press("u")
    assert visit.page.input_value("#f-prompt") == "something else"


@needs_browser
def test_settings_without_a_field_are_sent_along(visit: Visit) -> None:
    """And shown, and taken out again; a seed above 2^53 keeps its digits on both ways."""
    page, seed = visit.page, 2**64 - 1
    style = "style:unet=0.8,text=0.5"
    given = {"prompt": "a tree", "seed": str(seed), "steps": 2, "clip_skip": 2, "loras": [style]}
    fill = "async (said) => (await import('/page/form.js')).fill(said, 'settings')"
    page.evaluate(fill, {**given, "fit": "crop"})
    values = "import('/page/form.js').then((form) => form.values())"
    asked = page.evaluate(values)
    assert {name: asked.get(name) for name in given} == given
    assert "fit" not in asked
    shown = page.locator("#also .setting").all_inner_texts()
    assert [each.rstrip("\n\u00d7") for each in shown] == ["clip_skip 2", f"loras {style}"]
    page.click("#also [aria-label='Without loras']")
    assert "loras" not in page.evaluate(values)
    visit.settle()
    visit.errors[:] = [e for e in visit.errors if "404" not in e]  # a plan with what is not here
    page.click("#draw")
    page.wait_for_selector(DONE)
    page.evaluate(fill, {"prompt": "another"})
    assert "clip_skip" not in page.evaluate(values)
    page.click("#reuse")
    page.wait_for_selector("#also:has-text('clip_skip 2')")
    again = page.evaluate(values)
    assert (again["prompt"], again["seed"], again["clip_skip"]) == ("a tree", str(seed), 2)
    told = page.evaluate("fetch('/runs').then((answer) => answer.text())")
    assert f'"seed":{seed},' in told
    assert '"clip_skip":2' in told
    page.focus("#study")
    visit.press("u")
    assert page.input_value("#f-prompt") == "another"
    assert page.is_hidden("#also")


@needs_browser
def test_a_second_pass_a_refiner_and_what_is_lossy_have_fields(visit: Visit) -> None:
    page = visit.page
    page.click("#more summary")
    given = {"hires": "2", "hires_strength": "0.5", "hires_steps": "4", "hires_cfg": "3",
             "handover": "1", "lossy": "deepcache:every=2"}  # fmt: skip
    for name, text in given.items():
        page.fill(f"#f-{name}", text)
    page.select_option("#f-hires_scheduler", "heun")
    page.select_option("#f-refiner", "other")
    visit.draw("a tree", steps=4)
    (run,) = visit.runs()
    drawn = run["settings"]
    assert (drawn["hires"], drawn["hires_strength"], drawn["hires_steps"]) == (2, 0.5, 4)
    assert (drawn["hires_cfg"], drawn["handover"], drawn["hires_scheduler"]) == (3, 1, "heun")
    assert drawn["lossy"].startswith("deepcache:every=2")
    assert drawn["refiner"].endswith("tiny") or drawn["refiner"] == "other"
    assert drawn["width"] == 32
    page.click("#more summary")
    page.evaluate("import('/page/form.js').then((form) => form.fill({prompt: 'a'}, 'settings'))")
    assert {name: page.input_value(f"#f-{name}") for name in given} == dict.fromkeys(given, "")
    page.click("#reuse")
    page.wait_for_selector("#more[open]")
    assert page.input_value("#f-hires") == "2"
    assert not {*given, "refiner", "hires_scheduler"} & set(page.inner_text("#also").split())
    page.focus("#study")
    visit.press("u")
    assert page.input_value("#f-hires") == ""


@needs_browser
def test_what_a_run_began_with_is_reused_and_compared_with(visit: Visit, tmp_path: Path) -> None:
    """And not what the form holds by then."""
    page = visit.page
    half = Image.new("RGB", (32, 32), "teal")
    half.paste((255, 200, 0), (16, 0, 32, 32))
    half.save(tmp_path / "half.png")
    page.click("#start summary")
    page.set_input_files("#f-image", tmp_path / "half.png")
    page.wait_for_selector("#mask")
    page.focus("#mask")
    visit.press(" ")
    visit.draw("a boat")
    page.click("button:has-text('No picture')")
    page.evaluate("import('/page/form.js').then((form) => form.fill({prompt: 'a'}, 'settings'))")
    page.focus("#study")
    visit.press("c")
    page.click("dialog button.primary")
    page.wait_for_selector(".lane-B .caption:has-text('decoded')")
    visit.press("c")
    page.click("#reuse")
    page.wait_for_selector("#mask:visible")
    page.wait_for_function("document.querySelector('#f-prompt').value === 'a boat'")
    page.click("#draw")
    page.locator(DONE).nth(2).wait_for()
    runs = visit.runs()
    assert [run["pictures"] for run in runs] == [["image", "mask"]] * 3
    for name in ("image", "mask"):
        bodies = {page.request.get(f"{visit.home}/runs/{r['id']}/{name}.png").body() for r in runs}
        assert len(bodies) == 1
    bodies = [page.request.get(f"{visit.home}/runs/{r['id']}/picture.png").body() for r in runs]
    first, compared, again = (Image.open(io.BytesIO(body)).tobytes() for body in bodies)
    assert first == again != compared
    page.focus("#study")
    visit.press("u", "u")
    assert page.is_hidden("#mask")
    assert page.input_value("#f-prompt") == "a"


@needs_browser
def test_a_mask_is_drawn_with_mouse_and_keys(visit: Visit, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "teal").save(tmp_path / "sea.png")
    visit.page.click("#start summary")
    visit.page.set_input_files("#f-image", tmp_path / "sea.png")
    visit.page.wait_for_selector("#mask")
    visit.page.locator("#mask").scroll_into_view_if_needed()
    box = visit.page.locator("#mask").bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    visit.page.mouse.up()
    visit.page.focus("#mask")
    visit.press("Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowDown", " ")
    visit.draw("a boat")
    (run,) = visit.runs()
    assert run["pictures"] == ["image", "mask"]
    body = visit.page.request.get(f"{visit.home}/runs/{run['id']}/mask.png").body()
    (tmp_path / "mask.png").write_bytes(body)
    mask = Image.open(tmp_path / "mask.png").convert("L")
    assert {value for _, value in mask.getcolors()} == {0, 255}  # no grey edges
    assert [mask.getpixel(at) for at in ((10, 8), (16, 27), (28, 28), (2, 20))] == [255, 255, 0, 0]


@needs_browser
def test_nothing_moves_by_itself_where_that_is_not_wanted(browser: Any, port: int) -> None:
    visit = Visit(browser, port, reduced_motion="reduce")
    visit.draw()
    visit.press("Home", " ")
    visit.page.wait_for_timeout(500)
    assert visit.page.input_value("#scrub") == "1"
    visit.close()


@pytest.mark.slow
@needs_browser
def test_two_lanes_at_equal_cost_and_their_references(visit: Visit) -> None:
    visit.draw(steps=8, scheduler="euler")
    visit.press("c")
    visit.page.click("dialog button.primary")
    visit.page.wait_for_selector(".lane-B .caption:has-text('decoded')")
    a, b = visit.runs()
    assert (a["nfe"], b["nfe"], b["settings"]["scheduler"]) == (16, 14, "heun")  # 5 steps take 18
    visit.page.click("#measure")
    visit.page.wait_for_selector("#legend:has-text('B ends')")
    assert visit.page.locator(".curve-row:has-text('error') polyline").count() == 2


@pytest.mark.slow
@needs_browser
def test_playing_stops_at_the_end(visit: Visit) -> None:
    visit.draw()
    visit.press("Home", " ")
    assert visit.page.inner_text("#play") == "Stop"
    visit.page.wait_for_selector("#play:has-text('Play')")
    assert visit.page.input_value("#scrub") == "5"


@pytest.mark.slow
@needs_browser
def test_light_and_dark(visit: Visit) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = visit.page.evaluate(paper)
    visit.page.click("#theme")
    dark = visit.page.evaluate(paper)
    visit.page.reload()
    visit.page.wait_for_selector("#form[data-ready]")
    assert light != dark == visit.page.evaluate(paper)


def test_no_text_becomes_markup_and_nothing_is_elsewhere() -> None:
    files = {name: data.decode() for name, data in contents().items()}
    assert {"index.html", "main.js", "style.css", "mark.svg"} <= files.keys()
    for name, text in files.items():
        for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert bad not in text, (name, bad)
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert text.count("\n") < 350, name
    assert sum(map(len, files.values())) < 120_000
