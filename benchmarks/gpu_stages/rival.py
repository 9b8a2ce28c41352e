"""PyTorch on the same device in the same run: the network that this engine is compared with, eager.

channels_last, cudnn.benchmark, cross-entropy, SGD with momentum 0.99. Precisions: "float32" (no TF32 anywhere), "tf32",
and "bfloat16" (autocast, as ours keeps float32 weights too). "graph" is the same work replayed as one CUDA graph.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpu_child import Failed, Item, Skipped
from gpu_device import network_of

PRECISIONS = ("tf32", "bfloat16", "float32")
BATCHES = (1, 8)
BLOCK = 4  # calls between two events: the host runs ahead of the device, as in training


def items(settings: dict[str, Any]) -> list[Item]:
    timed = [
        (f"{precision}, batch {batch}", lambda p=precision, b=batch: network(settings, p, b, compiled=False))
        for batch in BATCHES
        for precision in PRECISIONS
    ]
    layers = [(f"layers, {precision}", lambda p=precision: per_layer(settings, p)) for precision in PRECISIONS]
    return [*timed, *layers]


def usable(settings: dict[str, Any]) -> Any:
    """The module `torch`; raises Skipped where there is none with a device."""
    if settings["device"] == "simulate":
        raise Skipped("PyTorch does not run on the simulator")
    try:
        import torch
    except ImportError:
        raise Skipped("PyTorch is not installed") from None
    if not torch.cuda.is_available():
        raise Skipped("PyTorch finds no CUDA device")
    torch.backends.cudnn.benchmark = True
    return torch


@contextmanager
def precision_set(torch: Any, precision: str) -> Iterator[Any]:
    """Inside, float32 products are as `precision` says; gives the autocast context that goes with it."""
    allowed = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    yield lambda: torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def network(settings: dict[str, Any], precision: str, batch: int, compiled: bool) -> dict[str, Any]:
    """Seconds of forward pass and step, each called and replayed; peaks of memory, in MiB, in a step."""
    torch = usable(settings)
    from rival_torch import Network

    gc.collect()  # what an earlier network left
    torch.cuda.empty_cache()
    size, base = (188, 8) if settings["tiny"] else network_of(settings)[:2]
    torch.manual_seed(0)
    model = Network(base).to("cuda", memory_format=torch.channels_last)
    call = torch.compile(model) if compiled else model
    image = torch.randn(batch, 1, size, size, device="cuda").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.99)
    row: dict[str, Any] = {"size": size, "base": base, "batch": batch, "precision": precision, "compiled": compiled}
    with precision_set(torch, precision) as reduced:

        def forward() -> Any:
            with torch.no_grad(), reduced():
                return call(image)

        label = torch.randint(2, (batch, *forward().shape[2:]), device="cuda")

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with reduced():
                scores = call(image)
            torch.nn.functional.cross_entropy(scores.float(), label).backward()
            optimizer.step()

        runs = 3 if settings["quick"] else 12
        row["forward_s"] = seconds(torch, forward, runs)
        row["step_s"] = seconds(torch, step, runs)
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        row["reserved_mib"] = torch.cuda.max_memory_reserved() / 2**20
        for name, work in (("forward", forward), ("step", step)):
            try:
                row[f"{name}_graph_s"] = seconds(torch, graphed(torch, work), runs)
            except Exception as error:
                row[f"{name}_graph_failed"] = f"{type(error).__name__}: {error}"[:300]
    return row


def seconds(torch: Any, work: Callable[[], Any], runs: int) -> float:
    """Median seconds of one call, by events around BLOCK of them; the first calls are not counted."""
    for _ in range(3):
        work()
    times = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(BLOCK):
            work()
        end.record()
        end.synchronize()
        times.append(1e-3 * begin.elapsed_time(end) / BLOCK)
    return statistics.median(times)


def graphed(torch: Any, work: Callable[[], Any]) -> Callable[[], Any]:
    """A function that replays the work as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def in_turn(torch: Any, calls: list[Callable[[], Any]]) -> float:
    """Median seconds of one of the calls, which are made one after another, as a graph where that can be."""

    def work() -> None:
        for call in calls:
            call()

    try:
        replay = graphed(torch, work)
    except RuntimeError:
        replay = work
    return seconds(torch, replay, 3) / len(calls)


def per_layer(settings: dict[str, Any], precision: str) -> dict[str, Any]:
    """{layer: {pass: seconds}}: every layer alone, channels_last, by cuDNN; timed as ours are (ladder.py)."""
    torch = usable(settings)
    import rival_torch
    from network import unet_layers

    size, base = (188, 8) if settings["tiny"] else network_of(settings)[:2]
    found = {}
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    with precision_set(torch, precision) as reduced, torch.device("cuda"):
        # The backward of a convolution takes its arrays as they are: autocast would not reach it.
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        before = torch.get_default_dtype()
        torch.set_default_dtype(kind)
        try:
            for layer in unet_layers(size, base):
                with reduced():
                    count = max(2, min(64, -(-3 * cache // layer.bytes)))
                    sets = [rival_torch.make_passes(layer.record(), "channels_last") for _ in range(count)]
                    by_pass = {name: [passes[name] for passes in sets] for name in sets[0]}
                    found[layer.name] = {name: in_turn(torch, calls) for name, calls in by_pass.items()}
        finally:
            torch.set_default_dtype(before)
    if not found:
        raise Failed("no layer was timed")
    return {"layers": found}
