"""The report in a real browser: hover, toggles, linked selection, both widths, light and dark, and no network."""

import math
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from analysis.report import write_comparison, write_report
from sbp_tune.study.results import METRICS

EVIL = "<img src=x onerror=alert(1)>"
WIDE, NARROW = (1280, 900), (400, 800)


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to look at the report")
    places = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=next(filter(None, places), None), args=["--no-sandbox"]
            )
        except sync_api.Error as error:
            pytest.skip(f"needs Chromium to look at the report: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """`opened(file, size, scheme)`: its page with every figure drawn, and what went wrong: errors and requests."""
    contexts = []

    def open_page(file, size=WIDE, scheme="light"):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None)
        page.on("request", lambda one: wrong.append(one.url) if one.url not in (file.as_uri(), "about:blank") else None)
        page.on("dialog", lambda dialog: (wrong.append("dialog"), dialog.dismiss()))
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-drawn=all]", timeout=120_000)
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def study(build, tmp_path):
    """Three controls and 24 sparse trials of two estimators with epochs, a stopped and a failed one."""
    energy = {"kwh_cpu": 6e-6, "kwh_ram": 1e-6, "kwh_measured_share": 0.5, "device": "cpu"}

    def cost(kwh):
        return {"kwh": kwh, "co2_kg": kwh / 3, "train_time_s": 2e6 * kwh, "tflop": 1e5 * kwh, "epoch": 2.0, **energy}

    controls = [build.trial("dense", val_accuracy=0.7 + n / 10, **cost(1e-5 * (n + 1))) for n in range(3)]
    sparse = [
        build.trial(
            ("mask", f"grid {EVIL}")[n % 2], val_accuracy=0.75 + 0.1 * math.sin(n), sparsity__p0=(n + 1) / 24,
            optimizer__lr=0.01 * (1 + n % 7), **cost(1e-5 * (1 + n / 12)),
        )
        for n in range(24)
    ]  # fmt: skip
    others = [build.trial(state="stopped", val_accuracy=0.3, **cost(2e-6)), build.trial(state="failed", error=EVIL)]
    study = replace(build.study(*controls, *sparse, *others, name=f"demo {EVIL}"), path=tmp_path)
    study.study["config"] = {"sparsity": {"estimator": {"choice": ["mask", "grid"]}, "p0": {"uniform": [0.0, 1.0]}}}
    rows = [
        {"trial": n, "epoch": e, "val_accuracy": 0.4 * e, "loss": 1 / e, "kwh": 5e-6 * e, "train_time_s": 5.0 * e}
        for n in range(27)
        for e in (1, 2)
    ]
    object.__setattr__(study, "epochs", pd.DataFrame(rows, columns=["trial", *METRICS]).astype(float))
    return study


FIGURE = """title => {
  let node = [...document.querySelectorAll('h3')].find(h => h.textContent === title);
  while (!node.classList.contains('figure')) node = node.nextElementSibling;
  return node;
}"""


def figure_of(page, title):
    return page.evaluate_handle(FIGURE, title).as_element()


def point_of(figure, trial):
    """The place of a trial's point in the window."""
    return figure.evaluate(
        """(figure, trial) => {
          figure.scrollIntoView({block: 'center'});
          const plot = figure.querySelector('.plot'), box = plot.getBoundingClientRect();
          const trace = plot._fullData.find(t => (t.customdata ?? []).includes(trial) && t.mode === 'markers');
          const at = trace.customdata.indexOf(trial), {xaxis, yaxis} = plot._fullLayout;
          return [box.x + xaxis._offset + xaxis.l2p(trace.x[at]), box.y + yaxis._offset + yaxis.l2p(trace.y[at])];
        }""",
        trial,
    )


def area_of(figure):
    """Left, top, right and bottom of the plot area in the window."""
    return figure.evaluate("""figure => {
      figure.scrollIntoView({block: 'center'});
      const box = figure.querySelector('.nsewdrag').getBoundingClientRect();
      return [box.left, box.top, box.right, box.bottom];
    }""")


def drag(page, left, top, right, bottom):
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move((left + right) / 2, (top + bottom) / 2, steps=3)
    page.mouse.move(right, bottom, steps=3)
    page.mouse.up()


SELECTED = "text => document.querySelector('#selection p').textContent.includes(text)"
IN_PARALLEL = "figure => [...new Set(figure.querySelector('.plot').data.at(-1).customdata)].sort((a, b) => a - b)"
IN_FRONT = """figure => figure.querySelector('.plot').data
  .flatMap(t => (t.selectedpoints ?? []).map(at => t.customdata[at])).sort((a, b) => a - b)"""


def test_hover_toggle_and_linked_selection(opened, study, tmp_path):
    page, wrong = opened(write_report(study, tmp_path / "report.html"))
    front, parallel = figure_of(page, "The front"), figure_of(page, "All searched values at once")

    page.mouse.move(*point_of(front, 5))
    text = page.wait_for_selector(".hoverlayer .hovertext").text_content()
    for part in ("trial 5, complete", "estimator: mask", "sparsity.p0: 0.125", "lr: 0.03", "kwh_cpu: 6.00 mWh"):
        assert part in text

    before = front.evaluate("figure => figure.querySelector('.plot').data.map(t => t.x)")
    assert front.query_selector(".xtitle").text_content() == "Energy (mWh)"
    front.query_selector_all(".updatemenu-button")[2].click()
    page.wait_for_function("figure => figure.querySelector('.xtitle').textContent === 'Training time (s)'", arg=front)
    assert front.evaluate("figure => figure.querySelector('.plot').data.map(t => t.x)") != before

    page.mouse.click(*point_of(front, 6))
    page.wait_for_function(SELECTED, arg="trial 6")
    assert parallel.evaluate(IN_PARALLEL) == [6] == front.evaluate(IN_FRONT)
    assert "sparsity.p0" in page.locator("#selection p").nth(1).text_content()
    page.keyboard.press("Escape")
    page.wait_for_selector("#selection", state="hidden")
    assert parallel.evaluate(IN_PARALLEL) == [] == front.evaluate(IN_FRONT)

    left, top, right, bottom = area_of(front)
    drag(page, left + 2, top + 2, right - 2, bottom - 2)
    page.wait_for_function(SELECTED, arg="27 trials")  # the stopped one is out of sight
    assert parallel.evaluate(IN_PARALLEL) == list(range(27))
    assert page.locator("tr.selected").count() > 3
    page.locator("#selection button").click()
    page.wait_for_selector("#selection", state="hidden")

    left, top, right, bottom = area_of(parallel)
    # accuracy is the first axis: its upper part
    drag(page, left + 0.5 * (right - left), top + 2, right - 2, top + 0.12 * (bottom - top))
    page.wait_for_selector("#selection", state="visible")
    chosen = front.evaluate(IN_FRONT)
    accuracy = study.trials["val_accuracy"][:27]
    assert 1 < len(chosen) < 20 and accuracy[chosen].min() > accuracy[~accuracy.index.isin(chosen)].max()

    page.locator("tr[data-trial='2']").first.click()
    page.wait_for_function(SELECTED, arg="trial 2")
    assert front.evaluate(IN_FRONT) == [2]
    assert wrong == []


LAYOUT = """() => {
  const wrong = [], over = document.documentElement.scrollWidth - innerWidth;
  if (over > 0) wrong.push(`the page is ${over} px too wide`);
  for (const figure of document.querySelectorAll('.figure')) {
    let title = figure;
    while (title.tagName !== 'H3') title = title.previousElementSibling;
    const box = figure.querySelector('.plot').getBoundingClientRect(), name = title.textContent;
    for (const text of figure.querySelectorAll('.plot text')) {
      const at = text.getBoundingClientRect();
      if (!at.width || text.closest('.hoverlayer')) continue;
      const out = Math.max(box.left - at.left, at.right - box.right, box.top - at.top, at.bottom - box.bottom);
      if (out > 2) wrong.push(`${name}: ${text.textContent} is cut by ${out} px`);
    }
    const legend = figure.querySelector('.legend')?.getBoundingClientRect();
    for (const area of figure.querySelectorAll('.nsewdrag')) {
      const at = area.getBoundingClientRect();
      if (legend && legend.top < at.bottom - 1) wrong.push(`${name}: the legend covers the plot`);
      if (at.height < 60 || at.width < 120) wrong.push(`${name}: only ${at.width} x ${at.height} px are left`);
    }
  }
  return wrong;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_every_figure_fits_and_can_be_read(opened, study, tmp_path, size, scheme):
    other = replace(study, path=tmp_path / "other")
    for file in (
        write_report(study, tmp_path / "report.html"),
        write_comparison([study, other], tmp_path / "both.html"),
    ):
        page, wrong = opened(file, size, scheme)
        assert page.evaluate(LAYOUT) == []
        drawn = page.locator(".figure .main-svg").count()
        assert drawn >= 8 and page.locator(".figure").count() <= drawn
        color = page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
        assert color == ("rgb(28, 28, 28)" if scheme == "light" else "rgb(232, 232, 232)")
        assert wrong == []
