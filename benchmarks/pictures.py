"""Plotly figures as PNG files for the documentation, drawn by the Chromium that the tests use."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from mixlaw.plots.style import styled

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 1000


def save(figures: Mapping[str, go.Figure], folder: Path = FOLDER) -> list[Path]:
    """Write each figure to <name>.png at twice its size on white; none where there is no Chromium."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        print("pictures: no chromium here, none drawn; install it (Debian: apt install chromium)")
        return []
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=2)
        for name, figure in figures.items():
            height = int(figure.layout.height)
            page.set_viewport_size({"width": WIDTH, "height": height})
            body = figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", width=WIDTH)
            page.set_content(body.to_html(include_plotlyjs=True, config={"staticPlot": True}), wait_until="load")
            page.add_style_tag(content="body { margin: 0 }")
            page.wait_for_selector(".main-svg")
            paths.append(folder / f"{name}.png")
            page.screenshot(path=paths[-1])
        browser.close()
    return paths


def finished(figure: go.Figure, title: str, height: int) -> go.Figure:
    """The look of the project, with room for a title above panels."""
    styled(figure, title, height)
    return figure.update_layout(margin={"t": 76, "l": 64, "r": 20, "b": 84}, legend={"y": -0.2})
