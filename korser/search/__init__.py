"""Search for the settings of a model with the best validation UAR.

==================== =================================================================================
``settings``         reads and checks ``hparams/search.yaml``
``space``            searched settings and their values
``check``            one training step with every value, before the first trial
``plan``             all that the search of one model needs
``configuration``    one combination of values and the result of its run
``searcher``         asks Optuna for trials, gives runs to workers, tells Optuna the results
``storage``          Optuna's study and its storage
``report``           table of trials, best settings as YAML, comparison of the two best trials
``summary``          text for the terminal and the report page
==================== =================================================================================
"""

import korser.utils.frames  # noqa: F401
from korser.search.searcher import search
from korser.search.settings import load_settings

__all__ = ["load_settings", "search"]
