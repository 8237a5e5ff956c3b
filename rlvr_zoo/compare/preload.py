"""What the server that forks runs imports once; it says nothing, and touches no GPU."""

from rlvr_zoo.models.quiet import quiet_transformers

quiet_transformers()

import transformers.models.auto.modeling_auto  # noqa: E402, F401

import rlvr_zoo.evaluate.lm_eval  # noqa: E402
import rlvr_zoo.train.setup  # noqa: E402, F401
