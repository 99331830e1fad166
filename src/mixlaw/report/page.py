"""The shell of the report: style and behaviour of the page, with plotly embedded once."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mixlaw.numbers import unparted
from mixlaw.plots.style import FONT, TEMPLATES
from mixlaw.printable import html_table

LEGEND = 44  # pixels of a plot below its axis
_OPTION, _ONE = re.compile(r"--[\w-]+"), r'<span class="one">\g<0></span>'
_SCRIPTS = re.compile(r"(<script.*?</script>)", re.DOTALL)

#: Colours of the report and of the dashboard, for light and dark pages.
PALETTE = """
:root {
  --ink: #1f2328; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --card: #f6f8fa; --rail: #c4ccd4;
  --good: #1a7f4b; --bad: #b35900; --mark: #0068a8; --worse: #fff4e8;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8eb; --soft: #9aa4af; --line: #30363d; --paper: #0d1117; --card: #161b22; --rail: #424a53;
    --good: #4cc38a; --bad: #f0a050; --mark: #56b4e9; --worse: #2a1f12;
  }
}
"""

STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 FONT; -webkit-text-size-adjust: 100%; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 24px; }
footer { padding-bottom: 48px; color: var(--soft); font-size: 14px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 52px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
main > section:first-child > h2 { margin-top: 0; border-top: 0; }
h3 { font-size: 16px; margin: 24px 0 4px; }
p { margin: 6px 0 12px; max-width: 74ch; }
li { margin: 3px 0; max-width: 74ch; }
.soft { color: var(--soft); }
.one { white-space: nowrap; }
nav {
  position: sticky; top: 0; z-index: 5; background: var(--paper); border-bottom: 1px solid var(--line);
  font-size: 14px; max-width: 1080px; margin: 14px auto 0; padding: 8px 20px; display: flex; flex-wrap: wrap;
  gap: 2px 16px;
}
section { scroll-margin-top: 64px; }
code { overflow-wrap: anywhere; }
a { color: var(--mark); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
.verdict {
  background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--good); border-radius: 8px;
  padding: 16px 20px; margin: 16px 0; font-size: 18px; line-height: 1.45;
}
.verdict.unsure { border-left-color: var(--rail); }
.verdict.no { border-left-color: var(--bad); }
.risks { padding-left: 20px; margin: 6px 0; }
.risks .bad { color: var(--bad); font-weight: 600; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 8px 20px; }
.grid > * { min-width: 0; }
.grid td.words { min-width: 120px; }
.plot { min-width: 0; width: 100%; }
.legend span { margin-right: 22px; white-space: nowrap; }
.legend i { display: inline-block; width: 22px; height: 3px; margin-right: 7px; vertical-align: middle; }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; min-width: min(100%, 480px); }
th, td { text-align: right; padding: 5px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.words, td.words { white-space: normal; text-align: left; min-width: 240px; }
td.bad { color: var(--bad); font-weight: 600; }
td.good { color: var(--good); }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  overflow-x: auto; font-size: 13px; line-height: 1.5;
}
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--mark); }
summary:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
@media (max-width: 820px) {
  th, td { padding: 5px 8px; }
}
@media (max-width: 520px) {
  .extra { display: none; }
  nav { padding-left: 14px; padding-right: 14px; flex-wrap: nowrap; overflow-x: auto; white-space: nowrap; }
  table { font-size: 13px; }
  th { font-size: 12px; }
  th, td { padding: 5px 3px; }
  td:last-child, td.range { white-space: normal; }
  th.words, td.words { min-width: 130px; }
  header { padding-top: 24px; }
  main, header, footer { padding-left: 14px; padding-right: 14px; }
  h1 { font-size: 23px; }
  h2 { margin-top: 40px; }
  .verdict { font-size: 16.5px; padding: 13px 15px; }
}
@media print {
  :root {
    --ink: #1f2328; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --card: #f6f8fa;
    --good: #1a7f4b; --bad: #b35900;
  }
  @page { size: A4; margin: 14mm; }
  body { font-size: 11.5pt; zoom: 0.85; }  /* the first page holds what a lead needs */
  nav, footer { display: none; }
  main, header, p, li { max-width: none; }
  main, header { padding: 0; }
  header { padding-top: 0; }
  h2, h3 { break-after: avoid; }
  h2 { margin-top: 24px; }
  .plot, .verdict, p, li, tr { break-inside: avoid; }
  h2 + p, h3 + p { break-after: avoid; }
  .soft, .risks { font-size: 10.5pt; }
  .scroll { overflow: visible; }
  .plot { min-width: 0 !important; }  /* one wider than the paper would shrink the whole page */
  table { font-size: 9.5pt; }
  th, td { padding: 3px 6px; }
  pre { white-space: pre-wrap; font-size: 9pt; }
  .grid { display: block; }  /* a grid would begin a page of its own, away from the words before it */
  .grid > .plot, .grid > div { display: inline-block; width: 49.5%; padding-right: 12px; vertical-align: top; }
  .grid.text > div { display: block; width: auto; padding: 0; }
  details:not([open]) { display: none; }
}
""".replace("FONT", FONT)

SCRIPT = """
const look = JSON.parse(document.getElementById('look').textContent);
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const mode = () => dark.matches ? 'dark' : 'light';
const config = {responsive: true, displaylogo: false, displayModeBar: 'hover',
  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']};
const texts = JSON.parse(document.getElementById('texts').textContent);
// plotly is packed, for it would be three quarters of the page.
const ready = (async () => {
  const packed = Uint8Array.from(atob(document.getElementById('plotly').textContent), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const script = document.createElement('script');
  script.textContent = await new Response(stream).text();
  document.head.append(script);
})();
function draw(box) {
  if (box.dataset.drawn) return;
  if (!window.Plotly) {
    ready.then(() => draw(box));
    return;
  }
  box.dataset.drawn = '1';
  const figure = JSON.parse(box.nextElementSibling.textContent);
  const words = i => typeof i === 'number' ? texts[i] : i;
  figure.data.filter(trace => trace.hovertext).forEach(trace => {
    trace.hovertext = Array.isArray(trace.hovertext) ? trace.hovertext.map(words) : words(trace.hovertext);
  });
  figure.layout.template = look[mode()];
  Plotly.newPlot(box, figure.data, figure.layout, config);
}
const boxes = [...document.querySelectorAll('.plot')];
const near = new IntersectionObserver(seen => seen.filter(s => s.isIntersecting).forEach(s => {
  near.unobserve(s.target);
  draw(s.target);
}), {rootMargin: '800px'});
boxes.forEach(box => near.observe(box));
dark.addEventListener('change', () => boxes.filter(box => box.dataset.drawn).forEach(box =>
  Plotly.relayout(box, {template: look[mode()]})));
// On paper: the light template, and every plot as wide as its box there (A4 less margins, 96 pixels an inch, zoomed).
function paper(printed) {
  if (!window.Plotly) return;
  boxes.filter(box => box.closest('details:not([open])') === null).forEach(box => {
    draw(box);
    const wide = printed ? (box.closest('.grid') ? 385 : 795) : undefined;
    Plotly.relayout(box, {template: look[printed ? 'light' : mode()], width: wide, autosize: !printed});
  });
}
window.addEventListener('beforeprint', () => paper(true));
window.addEventListener('afterprint', () => paper(false));
"""


@dataclass(frozen=True, eq=False)
class HoverTexts:
    """What plots show when a dot is pointed at: each text is on the page once, plots hold its number.

    Attributes:
        numbers: of the texts; an empty one is the first, so that no number is mistaken for nothing.
    """

    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    def number(self, text: str) -> int:
        """The number of a text."""
        return self.numbers.setdefault(text, len(self.numbers))

    def move_from(self, traces: Sequence[dict[str, Any]]) -> None:
        """Replace the hover texts of a plot by their numbers."""
        for trace in traces:
            if text := trace.get("hovertext"):
                trace["hovertext"] = self.number(text) if isinstance(text, str) else list(map(self.number, text))

    def script(self) -> str:
        """All texts, where the page's script finds them."""
        listed = json.dumps([*self.numbers], ensure_ascii=False)
        return f'<script id="texts" type="application/json">{_inert(listed)}</script>'


def page(title: str, body: str, texts: HoverTexts | None = None) -> str:
    """A whole page around a body, with style, plotly and behaviour inside: it needs no network."""
    look = {mode: template.to_plotly_json() for mode, template in TEMPLATES.items()}
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{PALETTE}{STYLE}</style>",
            "</head><body>",
            "".join(part if part.startswith("<script") else unparted(part) for part in _SCRIPTS.split(body)),
            (texts or HoverTexts()).script(),
            f'<script id="plotly" type="text/plain">{_packed_plotly()}</script>',
            f'<script id="look" type="application/json">{_inert(json.dumps(look))}</script>',
            f"<script>{SCRIPT}</script>",
            "</body></html>\n",
        ]
    )


@cache
def _packed_plotly() -> str:
    """The code and licence of plotly.js, as the page unpacks them."""
    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def plot(figure: go.Figure, alt: str, texts: HoverTexts | None = None, least: int = 0, legend: bool = True) -> str:
    """A figure as a box that draws itself when it comes near the window.

    Args:
        figure: what is drawn.
        alt: tells what it shows.
        texts: of the page, which takes those of the dots; without it they stay in the plot.
        least: width in pixels that it needs; on a narrower page it is moved sideways.
        legend: whether it has one of its own; where many plots share one, see `legend_of`.
    """
    if not legend:
        figure.update_layout(showlegend=False, height=figure.layout.height - LEGEND)
    figure.layout.template = None  # the page has one for each mode
    height, plain = int(figure.layout.height), json.loads(figure.to_json())
    if texts:
        texts.move_from(plain["data"])
    content = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    style = f"height:{height}px" + (f";min-width:{least}px" if least else "")
    box = f'<div class="plot" role="img" aria-label="{escape(alt)}" style="{style}"></div>'
    html = f'{box}<script type="application/json">{_inert(content)}</script>'
    return f'<div class="scroll">{html}</div>' if least else html


def legend_of(lines: Mapping[str, str]) -> str:
    """The legend of many plots: names of lines with their colours."""
    names = (f"<span><i style='background:{colour}'></i>{escape(name)}</span>" for name, colour in lines.items())
    return f"<p class='legend'>{''.join(names)}</p>"


def table(rows: Sequence[Sequence[str]], classes: Sequence[Sequence[str]] | None = None) -> str:
    """Cells as an HTML table, the first row its head; `classes` names a style for each cell below the head."""
    if classes:
        classes = [[name if {*name.split()} & {"words", "extra"} else "" for name in classes[0]], *classes]
    return f'<div class="scroll">{html_table(rows, classes)}</div>'


def bullets(items: Sequence[str]) -> str:
    """Sentences as a list; words in backquotes are set as code."""
    return "<ul>" + "".join(f"<li>{words(item)}</li>" for item in items) + "</ul>"


def words(text: str) -> str:
    """Escape a sentence, with words in backquotes as code."""
    parts = unparted(escape(text)).split("`")
    return "".join(_code(part) if i % 2 and i < len(parts) - 1 else part for i, part in enumerate(parts))


def _code(text: str) -> str:
    """Code whose options stay in one line each."""
    return f"<code>{_OPTION.sub(_ONE, text)}</code>"


def section(name: str, title: str, *parts: str) -> str:
    """A section with an anchor."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def _inert(text: str) -> str:
    """JSON that cannot end the script element around it."""
    return text.replace("</", "<\\/").replace("<!--", "\\u003c!--")
