"""The report of a run as one self-contained HTML page: what it holds, and how it is drawn.

:class:`~pyg_schnet.report.contents.Contents` holds everything that was measured,
``run_sections.py`` and ``model_sections.py`` turn it into tables, figures and sentences, and
:func:`~pyg_schnet.report.page.render_page` into HTML.
"""

from pyg_schnet.report.contents import Accuracy as Accuracy
from pyg_schnet.report.contents import Contents as Contents
from pyg_schnet.report.contents import DataSet as DataSet
from pyg_schnet.report.page import render_page as render_page
from pyg_schnet.report.page import write_page as write_page
