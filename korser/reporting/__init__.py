"""The report: one HTML page that holds everything a reader asks for, and opens from disk without a network.

=============  =======================================================================
``page``       ``write_report``: puts the page together
``results``    tables and answers of a comparison
``wrong``      the most confidently wrong utterances, with their audio
``settings``   settings, environments and runs
``cells``      tables as the template takes them (``korser/templates/report.html``)
=============  =======================================================================
"""

from korser.reporting.page import write_report
from korser.reporting.wrong import confidently_wrong

__all__ = ["confidently_wrong", "write_report"]
