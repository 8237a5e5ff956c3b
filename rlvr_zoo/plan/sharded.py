"""Weights and gradients of an update where FSDP2 shards the models, phase by phase.

A layer is gathered while it is used, with the next one on its way; its gradients are copied into
an fp32 buffer, which stays until the next layer's are, and its share of their sum remains.  What
is in no layer (the root: embedding, head, last norm) is gathered from a model's first gradient on,
and its gradients, in the type of computation, are whole until the backward pass of all models ends.
Models go backward in turn, the last to go forward first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlvr_zoo.plan.parameters import FP32, Parameters

Parts = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Bytes of one trained model's micro-batch."""

    kept: float
    """From the forward pass to the backward pass, in all layers."""
    ends: float
    """Beside them, after the last layer."""
    features: float
    """Of completion tokens, fp32."""
    layer: float
    """What a layer needs in its backward pass, whether it was kept or is computed anew."""
    again: float
    """The part of it that is not kept."""
    flow: float
    """Gradients by activations inside a layer."""
    embedded: float
    """The embedding's output."""
    logits: float
    """Of a chunk; 0 for a model that speaks no tokens."""


@dataclass(frozen=True)
class Shards:
    """Of one rank."""

    held: Parameters
    world_size: int
    width: int
    """Bytes of a number that matrix products take."""
    accumulates: bool
    """Is this not the step's first micro-batch?"""

    def phases(self, passes: Mapping[str, Pass]) -> dict[str, Parts]:
        """Of the last micro-batch; models are in the order of their forward passes."""
        found: dict[str, Parts] = {}
        first = next(iter(passes))
        waiting = list(passes)
        while waiting:
            name = waiting.pop()
            others = sum(passes[n].kept + passes[n].ends for n in waiting)
            gone = list(passes)[len(waiting) + 1 :]
            for phase, parts in self._backward(name, passes[name], gone):
                parts["activations"] += others
                found[phase if name == first else f"{name}: {phase}"] = parts
        spoken = passes[first]
        found["forward"] = {
            "activations": spoken.kept + spoken.ends,
            "logits": spoken.logits,
            # the last layer's gathered buffer stays to the end
            "compute copies": self.width * (self._root + self._layer),
            "gradients": self._earlier,
        }
        found["scatter"] = self._scatter(list(passes))
        return found

    # ------------------------------------------------------------- one model

    def _backward(self, name: str, work: Pass, gone: list[str]) -> Iterator[tuple[str, Parts]]:
        width, root, layer = self.width, self._root, self._layer
        vocabulary = self.held.shape.num_embedding_parameters
        spoken = vocabulary * (work.logits > 0) * self._full
        sums = FP32 * spoken + (width * spoken if width < FP32 else 0)
        whole = self._head_gradients + width * sum(map(self._trained_root, gone))
        done = self._earlier or sum(map(self._layers_share, gone))
        copies = width * root * len(gone)
        yield (
            "gather",
            {  # a buffer of all of it, and what it is copied to
                "activations": work.kept + work.ends,
                "compute copies": copies + width * 2 * root,
                "gradients": done + whole,
            },
        )
        yield (
            "logits",
            {
                "activations": work.kept + work.ends + work.features,
                "logits": work.logits + sums,
                "compute copies": copies + width * (root + layer),
                "gradients": done + whole,
            },
        )
        # of a layer, and of the one before
        passing = (width + FP32) * layer * self._full
        whole += width * spoken
        yield (
            "last layer",
            {
                "activations": work.kept + work.again + work.flow,
                "compute copies": copies + width * (root + 2 * layer),
                "gradients": done + whole + passing,
            },
        )
        share = FP32 * layer / self.world_size * self._full
        done = done + share if self._earlier else done + self._layers_share(name)
        yield (
            "first layer",
            {
                "activations": work.layer + work.flow,
                "compute copies": copies + width * (root + layer),
                "gradients": done - share * (not self._earlier) + whole + passing,
            },
        )
        yield (
            "embedding",
            {
                "activations": work.embedded,
                "compute copies": copies + width * root,
                # of a tied weight there is the head's gradient, the embedding's, and their sum
                "gradients": done
                + whole
                + FP32 * layer * self._full
                + width * (vocabulary * self._full + spoken * self.held.shape.tied),
            },
        )

    def _scatter(self, names: list[str]) -> Parts:
        """The end: the largest root's gradients, on their way to the ranks."""
        shape = self.held.shape
        roots = [self._trained_root(name) for name in names]
        buffer = FP32 * max(roots)
        # FSDP2 lets go of them once they are copied, but for the last, the head's
        last = 0 if shape.tied else self.width * shape.num_embedding_parameters * self._full
        own = self.width * max(roots)
        moving = buffer + max(own, last + buffer / self.world_size)
        layers = self._earlier or sum(map(self._layers_share, names))
        return {
            "compute copies": self.width * self._root * (len(names) - 1),
            "gradients": layers
            + self._head_gradients
            + self.width * (sum(roots) - max(roots))
            + moving,
        }

    # ------------------------------------------------------------- numbers of parameters

    @property
    def _full(self) -> bool:
        return not self.held.adapters

    @property
    def _root(self) -> int:
        return self.held.shape.num_root_parameters

    @property
    def _layer(self) -> float:
        shape = self.held.shape
        return shape.num_layer_parameters + self.held.adapters / shape.num_layers

    def _trained_root(self, name: str) -> int:
        shape = self.held.shape
        silent = name != "policy" and not shape.tied  # a critic's head stays as it is
        return (self._root - silent * shape.num_embedding_parameters) * self._full

    # ------------------------------------------------------------- bytes

    @property
    def _earlier(self) -> float:
        """This rank's share of what other micro-batches gave."""
        return FP32 * self.held.trained / self.world_size * self.accumulates

    @property
    def _head_gradients(self) -> float:
        """Of the algorithm's own head: the buffer, which stays, and this rank's share."""
        share = 0.0 if self.accumulates else 1 / self.world_size
        return FP32 * self.held.head * (1 + share)

    def _layers_share(self, name: str) -> float:
        shape = self.held.shape
        numbers = self.held.adapters or shape.num_layers * shape.num_layer_parameters
        return FP32 * numbers / self.world_size
