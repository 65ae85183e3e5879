"""What a corpus contains and what is wrong with it, before anything is trained on it.

==============  ============================================================================
``describe``    all of the following on one corpus
``measures``    loudness, silence, sampling rate and bandwidth of recordings
``labels``      tables of labels by speaker, gender, split and measure
``floor``       how well loudness, duration, silence or the sentence alone predict a label
``formats``     whether sampling rate or bandwidth depend on the label
``raters``      agreement of raters
``protocols``   which splits are possible
``audit``       what the parts of a published split share
==============  ============================================================================
"""

from korser.description.audit import audit
from korser.description.describe import Description, Section, describe

__all__ = ["Description", "Section", "audit", "describe"]
