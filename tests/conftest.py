"""What all tests share."""

from __future__ import annotations

import torch as th

# The networks of the tests are so small that a second thread costs more than it does.
th.set_num_threads(1)
