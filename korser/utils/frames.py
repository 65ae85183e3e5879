"""Let pandas store text as Python strings.

Where pyarrow is installed, pandas stores text in Arrow arrays, which refuse file names that are not valid UTF-8 and
turn enumerations into plain text. Packages that hold data frames import this module, so that korser does the same with
and without pyarrow.
"""

import pandas as pd

pd.set_option("mode.string_storage", "python")
