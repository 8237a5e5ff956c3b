"""What the server that forks runs imports once; it says nothing, and signals are not for it."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers send it to all: runs first have to save

from rlvr_zoo.models.quiet import quiet_transformers  # noqa: E402

quiet_transformers()

import transformers.models.auto.modeling_auto  # noqa: E402, F401

import rlvr_zoo.evaluate.lm_eval  # noqa: E402
import rlvr_zoo.train.setup  # noqa: E402, F401
