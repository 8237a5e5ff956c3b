"""Silences what would talk over us."""

from logging import ERROR, getLogger


def quiet_transformers() -> None:
    """No progress bars but ours, and no word of torchao's, which transformers loads where it is."""
    import torch  # sets up the loggers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in ("torchao", torch.utils._pytree.__name__):
        getLogger(name).setLevel(ERROR)
