"""CUDA where there is no GPU: one clear line; where there is one, memory, streams and graphs."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgecnn import cuda_api
from edgecnn.cuda_api import Buffer, buffer, call, captured, compute_capability, download, stream, upload
from edgecnn.errors import DeviceUnavailable, EngineError
from tests.gpu import gpu, without_gpu
from tests.paths import engine

engine("cuda.bindings.runtime")

SOURCE = Path(cuda_api.__file__).read_text()
CALLS = sorted(set(re.findall(r'(?:call|_give_back)\("(cuda\w+)"', SOURCE)))


def test_all_calls_are_found() -> None:
    assert len(CALLS) == 15


@pytest.mark.parametrize("name", CALLS)
def test_calls_exist(name: str) -> None:
    assert callable(getattr(cuda_api.find_cuda(), name))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"find_cuda\(\)((?:\.cuda\w+)+)", SOURCE))))
def test_constants_exist(path: str) -> None:
    value = cuda_api.find_cuda()
    for name in path.strip(".").split("."):
        assert hasattr(value, name)
        value = getattr(value, name)


def test_no_gpu_is_one_line() -> None:
    without_gpu()
    with pytest.raises(DeviceUnavailable) as refused:
        compute_capability()
    text = str(refused.value)
    assert re.fullmatch(
        r"no NVIDIA GPU can be used here \(.*cudaError\w+\); install NVIDIA's driver, or .*", text
    )


def test_errors_have_their_name() -> None:
    with pytest.raises(EngineError, match=r"^cudaMalloc failed: cudaError\w+$"):
        call("cudaMalloc", 2**62)


def test_errors_are_not_left_for_others() -> None:
    gpu()
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        call("cudaMalloc", 2**62)
    assert call("cudaGetLastError") is None


def test_missing_package_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['cuda'] = None\n"
        "from edgecnn.cuda_api import find_cuda\n"
        "try: find_cuda()\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingDependency cuda-python could not be imported (")
    assert done.stdout.endswith("try: pip install 'edgecnn[tensorrt]'\n")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64", "bool"])
def test_arrays_share_the_buffer(dtype: str) -> None:
    memory = Buffer(device=0, host=np.zeros(100, np.uint8))
    memory.array((2, 3), dtype)[:] = 1
    assert memory.array((6,), dtype).tolist() == [1] * 6
    assert np.count_nonzero(memory.host[6 * np.dtype(dtype).itemsize :]) == 0


def test_arrays_do_not_reach_beyond_the_buffer() -> None:
    with pytest.raises(TypeError, match="too small"):
        Buffer(device=0, host=np.zeros(7, np.uint8)).array((2,), "float32")


def test_bytes_go_to_the_gpu_and_back() -> None:
    gpu()
    with stream() as queue, buffer(8) as memory:
        memory.host[:] = range(8)
        upload(memory, 8, queue)
        call("cudaStreamSynchronize", queue)
        memory.host[:] = 0
        download(memory, 5, queue)
        call("cudaStreamSynchronize", queue)
        assert memory.host.tolist() == [0, 1, 2, 3, 4, 0, 0, 0]


def test_graphs_repeat_what_was_captured() -> None:
    gpu()
    with ExitStack() as held:
        queue, memory = held.enter_context(stream()), held.enter_context(buffer(4))
        memory.host[:] = 7
        upload(memory, 4, queue)
        call("cudaStreamSynchronize", queue)
        graph = held.enter_context(captured(queue, lambda: download(memory, 4, queue)))
        for _ in range(2):
            memory.host[:] = 0
            call("cudaGraphLaunch", graph, queue)
            call("cudaStreamSynchronize", queue)
            assert memory.host.tolist() == [7] * 4


def test_a_stream_works_on_after_a_failed_capture() -> None:
    gpu()
    with stream() as queue, buffer(4) as memory:
        with (
            pytest.raises(EngineError, match="cudaErrorStreamCapture"),
            captured(queue, lambda: call("cudaStreamSynchronize", queue)),
        ):
            pass
        memory.host[:] = 7
        upload(memory, 4, queue)
        download(memory, 4, queue)
        call("cudaStreamSynchronize", queue)
        assert memory.host.tolist() == [7] * 4
