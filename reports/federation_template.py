"""The parts of the page that are about federations and messages, for `reports.template`, whose macros they use."""

SELECTION = """
{% if selection %}
<section id="selection"><h2>Which generators were chosen</h2>
<p class="soft">Over the cells of an arm (classifiers, sizes of the training set, repeats): in how many of them a
generator was chosen, and its mean share of the synthetic images, 0 where it was not.</p>
{{ plain_table(selection) }}
</section>
{% endif %}
"""

CONVERGENCE = """
{% if convergence %}
<section id="convergence"><h2>Convergence</h2>
<p class="soft">How many real images each centre's discriminator had to see until the generator was as good as one trained
on pooled data: the target is that model's last measured distance to real images. Reached means the first crossing,
by straight lines between the measured rounds; a later rise does not undo it. The ratio is images seen alone over images
seen in the federation, so above 1 the federation was faster. The floor is the distance of one half of the real reference
to the other: nothing below it means anything. This is one training with one seed: no spread is known.</p>
<ul class="findings one">{% for s in convergence.sentences %}<li><strong>{{ s.about }}</strong><span>{{ s.text }}</span></li>
{% endfor %}</ul>
{{ picture(convergence.picture, "Distance to real images, logarithmic, lower is better. Solid: in the federation; "
     ~ "dashed, open marks: the centre alone; dash-dotted: one model on pooled data, over the images it saw itself. "
     ~ "Lines of centres that saw equally many images lie on each other and show their marks by turns.") }}
{% if convergence.left_out %}<p class="note">{{ convergence.left_out }}</p>{% endif %}
{{ plain_table(convergence.table) }}
</section>
{% endif %}
"""

SIMULATED_TIME = """
{% if simulated %}
<section id="simulated"><h2>Simulated time</h2>
<p class="soft">Speeds, delays and outages are declared in the scenario, and a virtual clock orders the replies by them:
nobody waited these seconds, and they say nothing of this machine.</p>
{{ plain_table(simulated.summary) }}
{% for part in simulated.parts %}
<h3>{{ part.title }}</h3>
{% if part.trouble %}<p class="note">{{ part.trouble }}</p>{% endif %}
{% if part.left_out %}<p class="soft">{{ part.left_out }}</p>{% endif %}
{{ picture(part.picture, "One lane a centre: bars are computing, marks are jobs that were not used.") }}
{{ plain_table(part.table) }}
{% endfor %}
</section>
{% endif %}
"""

DEPLOYMENT = """
{% if deployment %}
<section id="deployment"><h2>Deployment</h2>
<p class="soft">Real nodes, in real time. A node's time runs, in each session of the run, from the sending of its first job to its
last answer; computing is from the moment at which its client began a job to the one at which it ended it. The latency of a job is
the rest of the time in which it was the node's next one: starting a process, importing, asking for work, transfer. Between its
jobs a node also waits for those of other centres.</p>
{% for line in deployment.refusals %}<p class="note">{{ line }}</p>{% endfor %}
{{ facts(deployment.facts) }}
{% if deployment.picture %}{{ picture(deployment.picture, "One lane a centre. White: the server had no job for it.") }}{% endif %}
{{ plain_table(deployment.table) }}
{% if deployment.nodes %}{{ plain_table(deployment.nodes) }}{% endif %}
</section>
{% endif %}
"""

MESSAGES = """
{% if messages %}
<section id="messages"><h2>Messages</h2>
{% if messages.verdict %}<p class="note">{{ messages.verdict }}</p>{% endif %}
{% if messages.wide %}{{ plain_table(messages.table) }}
{% if messages.bars %}{{ picture(messages.bars, messages.bars_caption) }}{% endif %}
{% else %}<div class="side"><div>{{ plain_table(messages.table) }}</div>
<div>{% if messages.bars %}{{ picture(messages.bars) }}{% endif %}</div></div>{% endif %}
</section>
{% endif %}
"""
