"""The page with every section, in headless Chromium, as wide as a desk and as a phone."""

import asyncio
import base64
import itertools
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import numpy as np
import pandas as pd
import pytest
from tornado.websocket import websocket_connect

from epi2expr_jax.study import tables
from experiments.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = {"desk": 1400, "phone": 400}
HOSTILE = "<b>&</script><script>"
LONG = "H3K27ac+H3K4me3+H3K27me3+H3K4me1+H3K9me3+H3K36me3+H3K9ac"
SECTIONS = [
    "answer", "ranking", "questions", "baselines", "models", "windows", "pairs", "shapley",
    "quality", "cells", "across", "changes", "genes", "curves", "predictions", "worst", "methods",
    "limits", "made",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory, made_up_run):
    """The report of a run with everything that any program adds to one."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    assays = {"H3K27ac": 0.78, "H3K4me3": 0.74, "DNase": 0.68, "H3K27me3": 0.35}
    made = made_up_run(assays=assays | {LONG: 0.5}, symbol=HOSTILE)
    made.write(folder)
    made.write(folder.with_name("other"))
    random = np.random.default_rng(0)
    names = list(assays)
    interval = {"low": 0.4, "high": 0.6, "simultaneous_low": 0.3, "simultaneous_high": 0.7}
    base = {**interval, "lead": -0.1, "lead_low": -0.2, "lead_high": 0.1, "auc": 0.8}
    base |= {"n_genes": 1400, "n_chromosomes": 14}
    pd.DataFrame(
        [
            {"assay": assay, "model": model, "pearson": random.uniform(0.4, 0.6), **base}
            for assay in ("all", *names, LONG)
            for model in ("cnn", "linear", "ridge")
        ]
    ).reindex(columns=[*tables.BASELINES.key, *tables.BASELINES.numbers]).to_csv(
        folder / "baselines.csv", index=False
    )
    subsets = [set_ for n in (1, 2, 3, 4) for set_ in itertools.combinations(names, n)]
    pd.DataFrame(
        [
            {"cell": "all", "subset": "+".join(set_), "size": len(set_),
             "pearson": 0.4 + 0.1 * len(set_), **interval}
            for set_ in subsets
        ]
    ).reindex(columns=[*tables.SUBSETS.key, *tables.SUBSETS.numbers]).to_csv(
        folder / "subsets.csv", index=False
    )  # fmt: skip
    pd.DataFrame(
        [{"cell": "all", "assay": assay, "value": 0.2, **interval} for assay in names]
    ).reindex(columns=[*tables.SHAPLEY.key, *tables.SHAPLEY.numbers]).to_csv(
        folder / "shapley.csv", index=False
    )
    pd.DataFrame(
        [
            {"assays": assay, "trained_on": a, "cell": b, "seen": a == b, "pearson": 0.5,
             "baseline": 0.8, "deviation": 0.2, "lead_low": -0.4, **interval}
            for assay in names for a in made.cells for b in made.cells
        ]
    ).reindex(columns=[*tables.ACROSS.key, *tables.ACROSS.numbers]).to_csv(
        folder / "across_cells.csv", index=False
    )  # fmt: skip
    between = {"cell": "E003", "other": "E116", "trained_on": "E003", "pearson": 0.3, **base}
    between |= {"promoter": 0.2, "mse": 1.0, "no_change": 1.1, "less_low": -0.1, "less_high": 0.2}
    pd.DataFrame([{**between, "assays": assay} for assay in names]).reindex(
        columns=[*tables.CHANGES.key, *tables.CHANGES.numbers]
    ).to_csv(folder / "between_cells.csv", index=False)
    pd.DataFrame(
        [
            {"cell": cell, "assay": assay, "pearson": random.uniform(0.4, 0.6),
             "depth": random.uniform(1, 9), "signal_to_noise": random.uniform(2, 20)}
            for assay in names for cell in made.cells
        ]
    ).reindex(columns=[*tables.QUALITY.key, *tables.QUALITY.numbers]).to_csv(
        folder / "quality.csv", index=False
    )  # fmt: skip
    (folder / "evaluate.json").unlink()  # the table of qualities is made up
    sweep = folder.with_name("sweep")
    sweep.mkdir()
    pd.DataFrame(
        [
            {"assay": assay, "window_bp": width, "pearson": 0.5, **interval}
            for assay in ("all", *names)
            for width in (6000, 10_000, 40_000)
        ]
    ).reindex(columns=[*tables.SWEEP.key, *tables.SWEEP.numbers]).to_csv(
        sweep / "sweep.csv", index=False
    )
    path = write_report(
        folder, [folder.with_name("other")], sweep,
        browser_genes=["ENSG00000000007", "ENSG00000000008"],
    )  # fmt: skip
    for name in ("ranking", "cells", "baselines", "models", "sweep", "pairs", "shapley",
                 "across_cells", "curves", "predictions"):  # fmt: skip
        for kind in ("svg", "png"):
            assert (folder / "report" / f"{name}.{kind}").stat().st_size > 2000
    for name in ("ranking", "worst_genes", "baselines", "models", "shapley"):
        assert len(pd.read_csv(folder / "report" / f"{name}.csv")) > 0
    return path


class Tab:
    """A tab of a browser, driven by its DevTools protocol; what it reports is kept."""

    def __init__(self, socket):
        self.socket, self.events, self._id = socket, [], itertools.count(1)

    async def call(self, method, **parameters):
        number = next(self._id)
        await self.socket.write_message(
            json.dumps({"id": number, "method": method, "params": parameters})
        )
        while True:
            message = json.loads(await self.socket.read_message())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def evaluate(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]

    async def until(self, event):
        while not any(seen.get("method") == event for seen in self.events):
            self.events.append(json.loads(await self.socket.read_message()))


@pytest.fixture(scope="module")
def browser():
    """The address of a headless Chromium's DevTools."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            there = pathlib.Path(profile) / "DevToolsActivePort"
            until = time.monotonic() + 120  # of a busy machine
            while not (there.exists() and there.read_text().count("\n")):
                assert time.monotonic() < until, "chromium did not start"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{there.read_text().split()[0]}"
        finally:
            process.kill()
            process.wait()


async def look(browser, page, width, dark):
    """What a tab of that width sees of the page: events, facts, a screenshot."""
    request = urllib.request.Request(f"{browser}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(request) as answer:
        address = json.load(answer)["webSocketDebuggerUrl"]
    socket = await websocket_connect(address, max_message_size=1 << 28)
    tab = Tab(socket)
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.call(f"{domain}.enable")
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    await tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await tab.call("Emulation.setEmulatedMedia", features=[scheme])
    await tab.call("Page.navigate", url=page.as_uri())
    await tab.until("Page.loadEventFired")
    facts = await tab.evaluate(
        """({
          images: [...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0,
                                                 i.getBoundingClientRect().width > 50]),
          sections: [...document.querySelectorAll("main > section")].map(s => s.id),
          links: [...document.querySelectorAll("a")].map(a => a.getAttribute("href")),
          overflow: document.documentElement.scrollWidth - window.innerWidth,
          paper: getComputedStyle(document.body).backgroundColor,
          ink: getComputedStyle(document.body).color,
          outside: [...document.querySelectorAll("main *")]
            .filter(e => !e.closest(".scroll, pre, datalist"))
            .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
            .map(e => e.outerHTML.slice(0, 80)),
          spilt: [...document.querySelectorAll("p, li, h2, h3, figcaption, dd, .row .name, .value")]
            .filter(e => !e.closest(".scroll, pre") && e.scrollWidth > e.clientWidth + 1)
            .map(e => e.outerHTML.slice(0, 80)),
          cut: [...document.querySelectorAll(".row .name")].flatMap(e => [...e.childNodes])
            .filter(n => n.nodeType === Node.TEXT_NODE)
            .flatMap(n => [...n.data.matchAll(/[^ +]+/g)].filter(({0: word, index}) => {
              const range = document.createRange();
              range.setStart(n, index), range.setEnd(n, index + word.length);
              return range.getClientRects().length > 1;
            }).map(([word]) => word)),
          over: [...document.querySelectorAll(".row")].filter(row => {
            const boxes = [...row.children].map(e => e.getBoundingClientRect());
            const meet = (a, b, from, to) =>
              Math.min(a[to], b[to]) > Math.max(a[from], b[from]) + 1;
            return boxes.some((a, i) => boxes.slice(i + 1).some(
              b => meet(a, b, "left", "right") && meet(a, b, "top", "bottom")));
          }).map(row => row.textContent),
          first: gene.value,
          genes: document.querySelectorAll("#gene-names option").length,
          tracks: document.querySelectorAll("#browser .signal").length,
        })"""
    )
    facts |= await _used(tab)
    shot = await tab.call("Page.captureScreenshot", format="png")
    socket.close()
    while await socket.read_message() is not None:
        continue
    return tab.events, facts, base64.b64decode(shot["data"])


async def _used(tab):
    """What a reader gets who types a gene, steps back and forth, sorts, and goes along a track."""
    return await tab.evaluate(
        """(() => {
          const [previous, next] = document.querySelectorAll(".controls button");
          gene.value = "ensg00000000008", gene.dispatchEvent(new Event("change"));
          const typed = gene.value;
          previous.click(), next.click();
          const track = document.querySelector("#browser svg[tabindex]");
          const said = document.querySelector("#browser output.key");
          track.focus();
          const read = said.textContent;
          track.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", cancelable: true}));
          const picture = document.querySelector("#ranking picture");
          const tip = document.getElementById("tip");
          const slim = matchMedia("(max-width: 36rem)").matches;
          const places = JSON.parse(picture.dataset[slim ? "hintsNarrow" : "hints"]);
          const [left, top, right, bottom, text] = places[0];
          const box = picture.getBoundingClientRect();
          const at = {clientX: box.left + (left + right) * box.width / 2000 + 5,
                      clientY: box.top + (top + bottom) * box.height / 2000 + 3};
          picture.dispatchEvent(new PointerEvent("pointermove", at));
          const fits = tip.getBoundingClientRect().right <= innerWidth;
          const pointed = [text, tip.hidden, tip.textContent, fits];
          picture.dispatchEvent(new PointerEvent("pointerleave"));
          const left_alone = tip.hidden;
          picture.focus();
          for (const key of ["ArrowRight", "ArrowRight"])
            picture.dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
          const stepped_to = tip.textContent;
          picture.blur();
          const hints = [...document.querySelectorAll("picture")].map(
            p => [p.dataset.hints, p.dataset.hintsNarrow].map(t => JSON.parse(t).length));
          const head = document.querySelector("#ranking th:nth-child(2)");
          head.querySelector("button").click();
          const r = [...head.closest("table").tBodies[0].rows].map(r => r.cells[1].textContent);
          return {pointed, left_alone, stepped_to, hints, typed, stepped: gene.value, read,
                  moved: said.textContent, order: head.getAttribute("aria-sort"), r};
        })()"""
    )


@pytest.mark.parametrize("name", list(WIDTHS))
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_section_shows_and_nothing_is_fetched(browser, page, name, dark):
    look_at = look(browser, page, WIDTHS[name], dark)
    events, facts, shot = asyncio.run(asyncio.wait_for(look_at, 60))
    for event in events:
        assert event["method"] not in ("Runtime.exceptionThrown", "Log.entryAdded"), event
        if event["method"] == "Runtime.consoleAPICalled":
            assert event["params"]["type"] not in ("error", "warning"), event
    asked = [e["params"]["request"]["url"] for e in events
             if e["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert page.as_uri() in asked
    assert all(url == page.as_uri() or url.startswith("data:") for url in asked)
    assert len(facts["images"]) == 11
    assert all(loaded and wide for _, loaded, wide in facts["images"]), facts["images"]
    assert facts["sections"] == SECTIONS
    inside = {link for link in facts["links"] if link.startswith("#")}
    assert inside == {f"#{section}" for section in SECTIONS}
    tables_there = {f"report/{path.name}" for path in (page.parent / "report").glob("*.csv")}
    assert {*facts["links"]} - inside <= tables_there
    assert "report/ranking.csv" in facts["links"]
    assert facts["outside"] == [], "cut off"
    assert (facts["spilt"], facts["cut"], facts["over"]) == ([], [], [])
    assert facts["first"] == f"{HOSTILE} (ENSG00000000007)"
    assert facts["genes"] >= 50
    assert facts["tracks"] == 8
    assert facts["typed"] == facts["stepped"] == "ENSG00000000008"
    assert facts["order"] == "descending"
    assert facts["r"] == sorted(facts["r"], reverse=True)
    assert "at 0.05 kb" in facts["read"]
    assert "0.15 kb" in facts["moved"]
    text, hidden, said, inside = facts["pointed"]
    assert text == said
    assert "H3K27ac: r 0." in said
    assert (hidden, inside, facts["left_alone"]) == (False, True, True)
    assert facts["stepped_to"].startswith("H3K4me3: r ")
    assert all(wide == slim > 0 for wide, slim in facts["hints"]), facts["hints"]
    assert facts["overflow"] <= 0, "the page scrolls sideways"
    paper, ink = (_light(facts[part]) for part in ("paper", "ink"))
    assert (ink > paper) == dark
    assert abs(ink - paper) > 180
    assert len(shot) > 10_000


def _light(colour):
    return sum(int(part) for part in colour.strip("rgba()").split(",")[:3]) / 3
