"""The sections of the report, in the order of the page: `SECTIONS` makes both the page and its navigation."""

from reports.sections.centres import CENTRES
from reports.sections.convergence.section import CONVERGENCE
from reports.sections.deployment import DEPLOYMENT
from reports.sections.findings import FINDINGS
from reports.sections.images import IMAGES
from reports.sections.learning_curves import LEARNING_CURVES
from reports.sections.limits import LIMITS
from reports.sections.messages.section import MESSAGES
from reports.sections.results import RESULTS
from reports.sections.scenario import SCENARIO
from reports.sections.selection import SELECTION
from reports.sections.simulated_time.section import SIMULATED_TIME
from reports.sections.time_line import TIME_LINE

SECTIONS = (
    FINDINGS,
    RESULTS,
    SELECTION,
    CENTRES,
    IMAGES,
    LEARNING_CURVES,
    CONVERGENCE,
    SIMULATED_TIME,
    DEPLOYMENT,
    TIME_LINE,
    MESSAGES,
    LIMITS,
    SCENARIO,
)
