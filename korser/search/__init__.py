"""Search for the settings of a model that give the best validation UAR.

==================== =================================================================================
``settings``         ``hparams/search.yaml``, read and checked
``space``            the searched settings, their values, and which run a choice of values is
``coordinator``      asks Optuna, gives jobs to workers, tells Optuna
``report``           table of trials, the best settings as YAML, winner against runner-up
==================== =================================================================================
"""

from korser.search.coordinator import search
from korser.search.settings import load_settings

__all__ = ["load_settings", "search"]
