"""How a page looks: on a desk, on a phone, in the dark and on paper."""

from __future__ import annotations

# The fills are Okabe and Ito's colors, as in the benchmark's charts. As letters on white most of them are too pale to
# read, so text and signs have darker ones of the same hue, which on a dark page are the fills themselves.
_LIGHT = """
  --paper: #ffffff; --raised: #f5f7f9; --ink: #1c2126; --soft: #59636e; --line: #d9dfe5; --faint: #e9edf1;
  --link: #0063a0; --good: #00704f; --warn: #835300; --bad: #ad3f00;
  --good-tint: #e0f3ec; --warn-tint: #fcf0d8; --bad-tint: #fae6da; --mark-tint: #e3f0f8;
"""
_DARK = """
  --paper: #15181b; --raised: #1d2226; --ink: #e4e8eb; --soft: #9aa5af; --line: #363d44; --faint: #282e33;
  --link: #6cbdf0; --good: #3fc79c; --warn: #edb23c; --bad: #f58a45;
  --good-tint: #14322a; --warn-tint: #382c12; --bad-tint: #3b2315; --mark-tint: #16303f;
"""

STYLE = (
    f":root {{ color-scheme: light dark; --fill: #0072b2; --second: #d55e00; {_LIGHT} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ --fill: #3a9bd5; --second: #e8772a; {_DARK} }} }}\n"
    f"@media print {{ :root {{ color-scheme: light; --fill: #0072b2; --second: #d55e00; {_LIGHT} }} }}\n"
    + """\
*, ::before, ::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
main { padding-top: 2.25rem; }
h1, h2, h3, p, dl, dd, ul, figure { margin: 0; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 1.125rem; font-weight: 650; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 0.95rem; font-weight: 650; }
section { margin-top: 2.25rem; }
section > * + * { margin-top: 0.9rem; }
section section { margin-top: 1.5rem; }
p, li, dd { overflow-wrap: anywhere; text-wrap: pretty; }
main > p, section > p, .headline p, .notice p { max-width: 46rem; }
.muted, .subtitle { color: var(--soft); }
.subtitle { margin-top: 0.2rem; }
a { color: var(--link); text-underline-offset: 0.15em; }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin-top: 1.5rem; font-size: 0.867rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
code { font: 0.88em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
ul { padding-left: 1.15rem; }
li + li { margin-top: 0.25rem; }
footer { margin-top: 3rem; padding-bottom: 2rem; color: var(--soft); font-size: 0.8rem; }

.headline { margin-top: 1.5rem; padding: 1rem 1.2rem 1.05rem; border-left: 5px solid var(--fill);
  background: var(--mark-tint); }
.finding { font-size: 1.6rem; font-weight: 680; line-height: 1.25; letter-spacing: -0.015em; }
.finding + p { margin-top: 0.3rem; }
.notice { margin-top: 0.75rem; padding: 0.6rem 1.2rem; border-left: 5px solid var(--line); background: var(--raised); }
.notice.good { border-color: var(--good); background: var(--good-tint); }
.notice.warn { border-color: var(--warn); background: var(--warn-tint); }
.notice.bad { border-color: var(--bad); background: var(--bad-tint); }
.sign { display: inline-block; margin-right: 0.4em; font-weight: 700; color: var(--soft); }
.sign.good { color: var(--good); } .sign.warn { color: var(--warn); } .sign.bad { color: var(--bad); }
.sign.best { color: var(--link); }
.chip { display: inline-block; padding: 0 0.5em; border: 1px solid currentColor; border-radius: 1em;
  font: 600 0.72rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; white-space: nowrap;
  color: var(--link); }
.chip.good { color: var(--good); } .chip.warn { color: var(--warn); } .chip.bad { color: var(--bad); }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 10rem), 1fr)); gap: 1px;
  margin: 0.8rem 1px 0; }
.tiles > div { padding: 0.7rem 0.9rem 0.75rem; box-shadow: 0 0 0 1px var(--line); }
.tiles dt, .tiles .muted { font-size: 0.8rem; line-height: 1.35; }
.tiles dt { color: var(--soft); }
.tiles .figure { margin: 0.1rem 0; font-size: 1.35rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.facts > div { display: grid; grid-template-columns: 12rem 1fr; gap: 0 1rem; padding: 0.22rem 0;
  border-bottom: 1px solid var(--faint); }
.facts dt { color: var(--soft); }

.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { min-width: min(100%, 46rem); border-collapse: collapse; font-size: 0.9rem; overflow-wrap: break-word; }
.bars, .wide { width: 100%; }
caption { padding-bottom: 0.4rem; text-align: left; color: var(--soft); font-size: 0.867rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: 0.36rem 0.7rem; text-align: left; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: 0.3rem; }
th:last-child, td:last-child { padding-right: 0.3rem; }
thead th { padding-top: 0.1rem; vertical-align: bottom; font-weight: 600; line-height: 1.3; }
thead tr:last-child > * { border-bottom: 1.5px solid var(--soft); }
thead .group { text-align: center; border-bottom: 1px solid var(--line); }
tbody tr > * { border-bottom: 1px solid var(--faint); }
tbody th { font-weight: 400; }
.unit { display: block; color: var(--soft); font-weight: 400; font-size: 0.78rem; }
.note { display: block; max-width: 17rem; color: var(--soft); font-size: 0.78rem; font-weight: 400; line-height: 1.35; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.good { background: var(--good-tint); } td.warn { background: var(--warn-tint); }
td.bad { background: var(--bad-tint); } td.best { font-weight: 650; } td.muted { color: var(--soft); }
tr.strong > th { font-weight: 650; box-shadow: inset 3px 0 var(--fill); padding-left: 0.7rem; }
tr.strong > :not(.good, .warn, .bad) { background: var(--mark-tint); }
tr.follows > th { padding-left: 1.6rem; color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 0.15rem 1.4rem; margin-top: 0.6rem; padding: 0; list-style: none;
  color: var(--soft); font-size: 0.8rem; line-height: 1.45; }
.legend + .legend { margin-top: 0.15rem; }
.legend li { margin: 0; max-width: 46rem; }
.legend b { color: var(--ink); font-weight: 600; }

.bars th { padding-top: 0.2rem; padding-bottom: 0.2rem; }
.bars td { padding-top: 0.2rem; padding-bottom: 0.2rem; }
.bars tbody tr > * { border-bottom-color: transparent; }
.bar { width: 40%; min-width: 5rem; }
.bar svg { display: block; width: 100%; height: 0.8rem; background: var(--faint); }
rect { fill: var(--fill); } rect.tagged { fill: var(--second); }

.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.4rem 1.5rem; }
.gallery.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
figure img { display: block; max-width: 100%; height: auto; }
.gallery img { width: 100%; }
figcaption { margin-top: 0.4rem; color: var(--soft); font-size: 0.82rem; line-height: 1.4; overflow-wrap: anywhere; }
.chart-title { margin-bottom: 0.2rem; font-size: 0.82rem; line-height: 1.35; }
.histogram { display: block; width: 100%; max-width: 26rem; height: auto; }
.histogram text { fill: var(--soft); font-size: 10.5px; font-variant-numeric: tabular-nums; }
.histogram line { stroke: var(--line); } .histogram .grid { stroke: var(--faint); }
.histogram .axis { stroke: var(--soft); }
.histogram .threshold { stroke: var(--second); stroke-width: 1.5; stroke-dasharray: 4 3; }
.kept { fill: var(--fill); } .clipped { fill: var(--second); }
details > * + * { margin-top: 0.6rem; }
summary { cursor: pointer; color: var(--link); font-size: 0.9rem; }

@media (max-width: 40rem) {
  main, footer { padding-left: 1rem; padding-right: 1rem; }
  main { padding-top: 1.25rem; }
  h1 { font-size: 1.25rem; }
  .finding { font-size: 1.35rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .facts > div { grid-template-columns: 1fr; }
  .facts dt { font-size: 0.8rem; }
  th, td { padding-left: 0.4rem; padding-right: 0.4rem; }
  td:first-child, th:first-child { padding-left: 0.1rem; }
  .table .note { max-width: 40vw; }
  .table th:first-child { position: sticky; left: 0; background: var(--paper); }
  .bars thead, .bars tbody { display: block; }
  .bars tr { display: grid; grid-template-columns: 1fr repeat(var(--numbers), 4.2rem);
    padding-bottom: 0.3rem; font-size: 0.82rem; }
  .bars tr > * { grid-row: 1; padding: 0.15rem 0; }
  .bars thead th { white-space: normal; }
  .bars .bar { grid-row: 2; grid-column: 1 / -1; width: auto; }
  .bars thead td { display: none; }
}
@media print {
  body { font-size: 10pt; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main, footer { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll { overflow: visible; }
  th, td { padding-left: 0.35rem; padding-right: 0.35rem; }
  tr, figure, .notice, .headline, .tiles > div { break-inside: avoid; }
  h2, h3, caption, thead { break-after: avoid; }
  summary { display: none; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""
)
