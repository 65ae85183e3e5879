"""The report: one HTML page with all results, readable from disk without a network.

===================  ==================================================================================
``page``             ``write_report`` assembles the page from ``templates/report.html``
``run_tables``       tables of settings, environments and runs
``wrong``            utterances that are classified wrongly with the highest confidence, and their audio
``explained_wrong``  pictures of what speaks for the wrong classes
``figures``          the figures
===================  ==================================================================================
"""

import korser.utils.frames  # noqa: F401
from korser.reporting.page import write_report
from korser.reporting.wrong import confidently_wrong

__all__ = ["confidently_wrong", "write_report"]
