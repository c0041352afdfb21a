"""What all pages have in common: style, head, macros, and how a template is filled in.

Templates are in Python files because Flower's app bundle leaves .html files behind. A page loads nothing (its own policy
forbids it), runs no script, and prints.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

CSS = """
:root { --ink: #1f2933; --soft: #5b6670; --rule: #d9dde3; --tint: #f5f7f9; --accent: #0b5c8f;
        --good: #11704a; --bad: #a8321f; --warn: #8a5a00; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); 
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
main, header > div, footer > div { max-width: 1240px; margin: 0 auto; padding: 0 28px; }
header { background: var(--tint); border-bottom: 1px solid var(--rule); padding: 26px 0 20px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 20px; margin: 42px 0 8px; padding-top: 12px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 28px 0 6px; }
p { margin: 6px 0 10px; max-width: 88ch; }
a { color: var(--accent); }
code, pre { font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--tint); border: 1px solid var(--rule); border-radius: 4px; padding: 12px 14px; overflow-x: auto;
      white-space: pre-wrap; }
.soft, caption, figcaption { color: var(--soft); }
.lead { color: var(--soft); margin: 0; }
nav { font-size: 13.5px; margin-top: 12px; }
nav a { margin-right: 16px; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 10px 26px;
           margin: 16px 0 0; }
dl.facts dt { font-size: 12px; color: var(--soft); }
dl.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.status { border-left: 5px solid; padding: 10px 16px; margin: 18px 0 0; border-radius: 3px; }
.status p { margin: 3px 0; }
.completed { border-color: var(--good); background: #eef7f2; }
.failed { border-color: var(--bad); background: #fcf0ee; }
.interrupted { border-color: var(--warn); background: #fdf6e8; }
ul.findings { list-style: none; margin: 6px 0 4px; padding: 0; }
ul.findings li { display: grid; grid-template-columns: 118px 1fr; gap: 14px; padding: 6px 0;
                 border-bottom: 1px solid var(--rule); }
ul.findings.one li { grid-template-columns: minmax(118px, 260px) 1fr; }
.badge { align-self: start; justify-self: start; font-size: 12px; font-weight: 600; padding: 1px 9px;
         border-radius: 10px; border: 1px solid; white-space: nowrap; }
table.plain th, table.plain td { padding: 5px 10px; }
.helped { color: var(--good); } .hurt { color: var(--bad); } .unclear, .few, .none { color: var(--soft); }
.note { background: var(--tint); border-left: 3px solid var(--rule); padding: 8px 14px; margin: 12px 0; max-width: none;
        font-size: 14px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; margin: 10px 0 16px;
        font-variant-numeric: tabular-nums; }
table.full { width: 100%; }
caption { text-align: left; white-space: pre-line; padding-bottom: 6px; font-size: 13.5px; }
th, td { padding: 5px 6px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
         white-space: nowrap; }
thead th { font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom;
           white-space: normal; }
thead tr.group th { border-bottom: 1px solid var(--rule); text-align: left; white-space: nowrap; }
th[scope=row], td.text, th.text { text-align: left; white-space: normal; }
th[scope=row] { font-weight: 600; min-width: 120px; }
th[scope=row] small { display: block; font-weight: 400; color: var(--soft); }
td small { color: var(--soft); font-size: 11.5px; }
td small.line { display: block; }
.first { border-left: 1px solid var(--rule); }
tr.baseline { background: var(--tint); }
tr.control th, tr.control td, tr.upper th, tr.upper td { font-style: italic; }
.mark { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 6px; }
figure { margin: 12px 0 18px; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: 13px; margin-top: 4px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 22px; align-items: start; }
.pair img { width: 100%; image-rendering: pixelated; border: 1px solid var(--rule); }
.side { display: grid; grid-template-columns: minmax(0, 1.2fr) minmax(0, 1fr); gap: 26px; align-items: start; }
details { margin: 10px 0; }
summary { cursor: pointer; font-weight: 600; }
footer { border-top: 1px solid var(--rule); margin-top: 46px; padding: 14px 0 30px; font-size: 13px;
         color: var(--soft); }
@media (max-width: 760px) { .pair, .side, ul.findings li { grid-template-columns: 1fr; gap: 6px; } }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { font-size: 11px; }
  main, header > div, footer > div { max-width: none; padding: 0; }
  header { background: none; padding-top: 0; }
  nav { display: none; }
  table { font-size: 9.5px; } th, td { padding: 2px 5px; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .note, .status { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# default-src 'none' forbids every request; pictures are data URIs and the styles are in the page.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ css }}</style>
</head>
"""

MACROS = """
{%- macro picture(p, caption="") -%}
<figure><img src="{{ p.uri }}" alt="{{ p.alt }}">
{%- if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}</figure>
{%- endmacro -%}
{%- macro facts(items) -%}
<dl class="facts">{% for name, value in items %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>
{%- endmacro -%}
{%- macro plain_table(t) -%}
<div class="wide"><table class="plain">
{% if t.caption %}<caption>{{ t.caption }}</caption>{% endif %}
<thead><tr>
{% for name in t.header %}<th scope="col"{% if t.text[loop.index0] %} class="text"{% endif %}>{{ name }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for row in t.rows %}<tr>
{% for entry in row %}
{% if loop.first %}<th scope="row">{{ entry }}</th>
{% else %}<td{% if t.text[loop.index0] %} class="text"{% endif %}>{{ entry }}</td>
{% endif %}
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro -%}
"""

# Autoescape: names, notes and errors come from scenarios and centres.
_PAGES = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def fill(template: str, **content: Any) -> Markup:
    """Fill in a template, which may use the macros; everything but pictures, CSS and other filled templates is escaped."""
    return Markup(_PAGES.from_string(MACROS + template).render(css=Markup(CSS), **content))
