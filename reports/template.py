"""The page: HTML and CSS, filled in by Jinja2.

It is a Python file because Flower's app bundle leaves .html files behind. The page loads nothing (its own policy
forbids it), runs no script, and prints.
"""

from reports.federation_template import CONVERGENCE, DEPLOYMENT, MESSAGES, SELECTION, SIMULATED_TIME

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
{% for cell in row %}
{% if loop.first %}<th scope="row">{{ cell }}</th>
{% else %}<td{% if t.text[loop.index0] %} class="text"{% endif %}>{{ cell }}</td>
{% endif %}
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro -%}
"""

_RESULT_TABLE = """
{%- macro result_table(t, metrics) -%}
<div class="wide"><table class="full">
<caption>{{ t.captions|join("\n") }}</caption>
<thead>
<tr class="group"><td></td><th scope="colgroup" colspan="2">Training images</th>
{% for g in t.groups %}<th scope="colgroup" class="first" colspan="{{ metrics|length + 1 }}">at {{ g }}</th>
{% endfor %}</tr>
<tr><th scope="col" class="text">Arm</th><th scope="col">own</th><th scope="col">added</th>
{% for g in t.groups %}
{% for m in metrics %}<th scope="col"{% if loop.first %} class="first"{% endif %}>{{ m }}</th>
{% endfor %}<th scope="col">vs baseline</th>
{% endfor %}</tr>
</thead>
<tbody>
{% for row in t.rows %}<tr class="{{ row.css }}">
<th scope="row"><span class="mark" style="background:{{ row.colour }}"></span>{{ row.name }}
{% for line in row.lines %}<small>{{ line }}</small>{% endfor %}</th>
<td>{{ row.n_real }}</td><td>{{ row.n_synthetic }}</td>
{% for g in row.groups %}
{% for cell in g.cells %}<td{% if loop.first %} class="first"{% endif %}>{{ cell.mean }}
{%- if cell.sd %}<small class="line">({{ cell.sd }})</small>{% endif %}</td>
{% endfor %}
<td class="{{ g.css }}">
{% if g.difference %}<strong>{{ g.difference }}</strong>{% if g.sd %} <small>({{ g.sd }})</small>{% endif %}
<small class="line">{{ g.better }}</small>{% if g.interval %}<small class="line">{{ g.interval }}</small>{% endif %}
{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro -%}
"""

PAGE = (
    HEAD
    + MACROS
    + _RESULT_TABLE
    + """
<body>
<header><div>
<h1>{{ study.name }}</h1>
{% if study.description %}<p class="lead">{{ study.description }}</p>{% endif %}
<div class="status {{ status.kind }}" role="status">
<p><strong>{{ status.title }}</strong></p>
{% for line in status.refusals %}<p><strong>Refused:</strong> {{ line }}</p>{% endfor %}
{% for line in status.lines %}<p>{{ line }}</p>{% endfor %}
{% if status.command %}<p>To go on: <code>{{ status.command }}</code></p>{% endif %}
</div>
{{ facts(header) }}
<nav aria-label="Sections">
{% for anchor, name in sections %}<a href="#{{ anchor }}">{{ name }}</a>
{% endfor %}</nav>
</div></header>
<main>

<section id="findings"><h2>Findings</h2>
{% if not blocks %}<p>No classifier was tested yet, so there is nothing to find.</p>{% endif %}
{% for b in blocks %}
<h3>{{ b.title }}</h3>
{% if b.findings %}<ul class="findings">
{% for f in b.findings %}<li><span class="badge {{ f.css }}">{{ f.verdict }}</span>
<span>{{ f.sentence }}{% if f.role %} <span class="soft">({{ f.role }})</span>{% endif %}</span></li>
{% endfor %}</ul>
{% else %}<p>{{ b.no_findings }}</p>{% endif %}
{% endfor %}
{% if caution %}<p class="note">{{ caution }}</p>{% endif %}
{% for line in unplaced_troubles %}<p class="note">{{ line }}</p>{% endfor %}
</section>

{% if blocks %}
<section id="results"><h2>Results</h2>
<p class="soft">Percent: mean (standard deviation over repeats). “vs baseline” is the difference in AUROC in percentage
points, paired by repeat{% if baseline %}, against <strong>{{ baseline }}</strong>{% endif %}; below it, in how many
repeats the arm was better, and in brackets the 95 % interval over test patients. Green or red only where that
reads “helped” or “hurt” by the rule under <a href="#limits">Limits</a>.
Of the training images, “own” are the receiver's real ones; “added” are synthetic, or what an upper bound (real images
of another centre) or a control (own images again) adds in their place.</p>
{% for b in blocks %}
<h3>{{ b.title }}</h3>
{{ picture(b.picture, "Each dot is one repeat, the bar their mean, the dashed line the mean of the baseline. "
                      ~ "The axis does not start at zero.") }}
{% for t in b.tables %}{{ result_table(t, metrics) }}{% endfor %}
{% for line in b.troubles %}<p class="note">{{ line }}</p>{% endfor %}
{% endfor %}
</section>
{% endif %}
"""
    + SELECTION
    + """

<section id="centres"><h2>What the centres hold</h2>
{% if survey %}{% for t in survey + partition %}{{ plain_table(t) }}{% endfor %}
<p class="soft">Counts of 1 to 4 are shown as &lt;5. Splits are by patient.</p>
{% else %}<p>The record holds no survey.</p>{% endif %}
{% if notes %}<h3>Notes</h3><ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
</section>

{% if samples or real_samples %}
<section id="samples"><h2>Images</h2>
{% for s in samples %}<h3>{{ s.title }}</h3>
<div class="pair">
<div>{{ picture(s.synthetic, "Synthetic, not chosen by hand: " ~ s.about) }}</div>
<div>{% if s.real %}{{ picture(s.real, "Real training patches of " ~ s.centre ~ ". They are here because all "
     ~ "centres of a simulation are one machine; in a deployment they stay in the hospital.") }}{% endif %}</div>
</div>{% endfor %}
{% if real_samples %}<h3>Real patches of the other centres</h3>
<div class="pair">{% for r in real_samples %}<div>{{ picture(r.picture, r.caption) }}</div>{% endfor %}</div>{% endif %}
</section>
{% endif %}

{% if generator_curves or classifier_curves %}
<section id="curves"><h2>Learning curves</h2>
{% if generator_curves %}<h3>Generators</h3>
{{ picture(generator_curves, "Losses over training steps, averaged over neighbouring steps where there are many. "
                             ~ "Losses of adversarial models do not measure the quality of images.") }}{% endif %}
{% if classifier_curves %}<h3>Classifiers</h3>
{{ picture(classifier_curves, "AUPRC on the receiver's validation images over training steps, one line a repeat.") }}
{% endif %}
</section>
{% endif %}
"""
    + CONVERGENCE
    + SIMULATED_TIME
    + DEPLOYMENT
    + """
<section id="time"><h2>Who worked when</h2>
{% if time_line %}
{{ picture(time_line, "Every bar is one unit of work in a centre; a centre with several bars at once worked in "
                      ~ "parallel lanes. What was read from an earlier session's record takes no time here.") }}
{{ facts(time_facts) }}
{% else %}<p>No unit of work has finished yet.</p>{% endif %}
</section>
"""
    + MESSAGES
    + """
<section id="limits"><h2>How to read this, and its limits</h2>
<ul>{% for line in limits %}<li>{{ line }}</li>{% endfor %}</ul>
<p><strong>This is research software, not a medical device. Nothing here may guide the care of a patient.</strong></p>
</section>

<section id="scenario"><h2>The scenario and the machine</h2>
<details><summary>Resolved scenario (seed {{ study.seed }})</summary><pre>{{ scenario_yaml }}</pre></details>
<details><summary>Environment</summary><pre>{{ environment }}</pre></details>
</section>
</main>
<footer><div>{{ footer }}</div></footer>
</body></html>
"""
)

COMPARISON = (
    HEAD
    + MACROS
    + """
<body>
<header><div><h1>{{ title }}</h1>
<p class="lead">{{ runs|length }} runs. The same arm name need not mean the same settings: see what differs.</p>
</div></header>
<main>
<section id="runs"><h2>Runs</h2>{{ plain_table(runs_table) }}
{% for line in warnings %}<p class="note">{{ line }}</p>{% endfor %}</section>
<section id="results"><h2>AUROC</h2>
<p class="soft">Percent: mean (standard deviation over repeats); below it, the difference to the baseline of the
same run in points, paired by repeat, and in how many repeats the arm was better. Differences between runs are not
paired: their seeds, data or machines may differ.</p>
{% if not tables %}<p>None of these runs has results yet.</p>{% endif %}
{% for t in tables %}<h3>{{ t.title }}</h3>
<div class="wide"><table class="plain">
<thead><tr><th scope="col" class="text">Arm</th>
{% for run in runs %}<th scope="col">{{ run }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in t.rows %}<tr>
<th scope="row">{{ row.name }}{% if row.role %}<small>{{ row.role }}</small>{% endif %}</th>
{% for cell in row.cells %}<td>{{ cell.value }}
{%- if cell.difference %}<small class="line">{{ cell.difference }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}</section>
<section id="differences"><h2>What differs between the scenarios</h2>
{% if differences.rows %}{{ plain_table(differences) }}
{% else %}<p>Nothing: the resolved scenarios are equal.</p>{% endif %}</section>
</main>
<footer><div>{{ footer }}</div></footer>
</body></html>
"""
)
