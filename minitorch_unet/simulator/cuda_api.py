"""The stand-in's `cupy.cuda`: one device, streams that run everything at once, graphs, events, properties."""

from __future__ import annotations

import itertools
import time
import types
from typing import Any

from . import capture, memory, stats

# What the one device claims to be; tests may change values. Names are those of cudaDeviceProp.
properties: dict[str, Any] = {
    "name": b"simulated on the processor", "major": 9, "minor": 0, "totalGlobalMem": 80 << 30,
    "multiProcessorCount": 132, "sharedMemPerBlock": 48 << 10, "sharedMemPerBlockOptin": 227 << 10,
    "sharedMemPerMultiprocessor": 228 << 10, "l2CacheSize": 50 << 20, "warpSize": 32, "regsPerBlock": 65536,
    "maxThreadsPerBlock": 1024, "maxThreadsPerMultiProcessor": 2048,
}  # fmt: skip


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime."""


class CUDADriverError(RuntimeError):
    """An error of the CUDA driver."""


class CompileException(Exception):
    """A source that does not compile."""


class Device:
    """The device number 0."""

    def __init__(self, device: Any = None) -> None:
        self.id = getattr(device, "id", device) or 0
        if self.id != 0:
            raise CUDARuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal {self.id}; there is one device")

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __int__(self) -> int:
        return self.id

    def use(self) -> Device:
        """Make it the current device: it always is."""
        return self

    def synchronize(self) -> None:
        """Wait for all work."""
        capture.synchronised("Device.synchronize")

    @property
    def compute_capability(self) -> str:
        """Major and minor number, such as "90"."""
        return f"{properties['major']}{properties['minor']}"

    @property
    def attributes(self) -> dict[str, int]:
        """The device's limits, by the names of cudaDeviceAttr."""
        return {
            "MultiProcessorCount": properties["multiProcessorCount"],
            "ComputeCapabilityMajor": properties["major"],
            "ComputeCapabilityMinor": properties["minor"],
            "MaxSharedMemoryPerBlock": properties["sharedMemPerBlock"],
            "MaxSharedMemoryPerBlockOptin": properties["sharedMemPerBlockOptin"],
            "MaxSharedMemoryPerMultiprocessor": properties["sharedMemPerMultiprocessor"],
            "MaxThreadsPerBlock": properties["maxThreadsPerBlock"],
            "MaxThreadsPerMultiProcessor": properties["maxThreadsPerMultiProcessor"],
            "L2CacheSize": properties["l2CacheSize"],
            "WarpSize": properties["warpSize"],
        }

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        return _mem_get_info()


class Graph:
    """Captured work; `launch` runs it on the same memory."""

    def __init__(self, recording: capture.Recording) -> None:
        self._recording = recording

    def launch(self, stream: Any = None) -> None:
        """Run the work."""
        capture.refuse_while_capturing("Graph.launch")
        stats.note_graph()
        self._recording.replay()

    def upload(self, stream: Any = None) -> None:
        """Prepare the launch."""
        capture.refuse_while_capturing("Graph.upload")


class Stream:
    """A queue of work, which the stand-in does as soon as it is given."""

    null: Stream
    _numbers = itertools.count(1000)

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.ptr = 0 if null else 1 if ptds else next(self._numbers)
        self.device_id = -1 if null else 0
        self.is_non_blocking = non_blocking

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Stream:
        capture.state.streams.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        capture.state.streams.pop()

    def synchronize(self) -> None:
        """Wait for its work."""
        capture.synchronised("Stream.synchronize")

    @property
    def done(self) -> bool:
        """Whether its work is done."""
        capture.refuse_while_capturing("Stream.done")
        return True

    def record(self, event: Event | None = None) -> Event:
        """Note the moment in an event."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let its further work wait for the event."""

    def begin_capture(self, mode: Any = None) -> None:
        """Record work from now on instead of doing it."""
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if capture.state.recording is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: a capture is under way")
        capture.state.recording = capture.Recording(self)

    def end_capture(self) -> Graph:
        """The work recorded since begin_capture."""
        recording = capture.state.recording
        if recording is None or recording.stream != self:
            raise CUDARuntimeError("cudaErrorIllegalState: this stream is not being captured")
        capture.state.recording = None
        return Graph(recording)

    def is_capturing(self) -> bool:
        """Whether its work is being recorded."""
        return capture.state.recording is not None and capture.state.recording.stream == self


Stream.null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    """The stream that work goes to."""
    return capture.state.streams[-1] if capture.state.streams else Stream.null


class Event:
    """A moment in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.time: float | None = None
        self._timing = not disable_timing

    def record(self, stream: Stream | None = None) -> None:
        """Note the moment."""
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for it."""
        capture.synchronised("Event.synchronize")

    @property
    def done(self) -> bool:
        """Whether it has come."""
        return True


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events. On the processor: it says nothing about a GPU."""
    if start_event.time is None or end_event.time is None or not (start_event._timing and end_event._timing):
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    return (end_event.time - start_event.time) * 1000


def is_available() -> bool:
    """Whether there is a device."""
    return True


def _mem_get_info() -> tuple[int, int]:
    total = properties["totalGlobalMem"]
    return total - memory.default_pool.total_bytes(), total


def _get_device_properties(device: int) -> dict[str, Any]:
    Device(device)
    return dict(properties)


runtime = types.ModuleType("cupy.cuda.runtime")
vars(runtime).update(
    CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1, getDevice=lambda: 0,
    getDeviceProperties=_get_device_properties, memGetInfo=_mem_get_info, runtimeGetVersion=lambda: 13000,
    driverGetVersion=lambda: 13000, deviceSynchronize=lambda: capture.synchronised("deviceSynchronize"),
    streamCaptureModeGlobal=0, streamCaptureModeThreadLocal=1, streamCaptureModeRelaxed=2,
)  # fmt: skip

driver = types.ModuleType("cupy.cuda.driver")
vars(driver).update(CUDADriverError=CUDADriverError)
compiler = types.ModuleType("cupy.cuda.compiler")
vars(compiler).update(CompileException=CompileException)
memory_module = types.ModuleType("cupy.cuda.memory")
vars(memory_module).update(OutOfMemoryError=memory.OutOfMemoryError)

module = types.ModuleType("cupy.cuda")
vars(module).update(
    Device=Device, Event=Event, Graph=Graph, MemoryPool=memory.MemoryPool, MemoryPointer=memory.MemoryPointer,
    Stream=Stream, get_current_stream=get_current_stream, get_elapsed_time=get_elapsed_time, is_available=is_available,
    runtime=runtime, driver=driver, compiler=compiler, memory=memory_module, set_allocator=memory.set_allocator,
    using_allocator=memory.using_allocator,
)  # fmt: skip
