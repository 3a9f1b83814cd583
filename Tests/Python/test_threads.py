"""Living with others: threads of Python, fork, OMP_NUM_THREADS, cpusets, and jax before or after."""

import os
import threading

import numpy as np
import pytest
import swiftattn
from support import run_python

CALL = """
import numpy as np, swiftattn
rng = np.random.default_rng(0)
x = rng.standard_normal((1, 2, 300, 64)).astype(np.float32)
def call():
    out = swiftattn.scaled_dot_product_attention(x, x, x, is_causal=True)
    return out, swiftattn.linear(x, x[0, 0])
"""


def test_set_and_get():
    before = swiftattn.get_num_threads()
    try:
        for number in (1, 2, 3, 7, 1024):
            swiftattn.set_num_threads(number)
            assert swiftattn.get_num_threads() == number
        swiftattn.set_num_threads(0)
        assert swiftattn.get_num_threads() >= 1
        for number in (-1, 1025):
            with pytest.raises(ValueError):
                swiftattn.set_num_threads(number)
    finally:
        swiftattn.set_num_threads(before)


def test_eight_python_threads_at_once():
    rng = np.random.default_rng(0)
    problems = [[rng.standard_normal((2, 2, 60 + 13 * n, 32)).astype(np.float32) for _ in range(3)] for n in range(8)]
    expected = [swiftattn.scaled_dot_product_attention(*problem, is_causal=True) for problem in problems]
    failures = []

    def work(number):
        try:
            for _ in range(20):
                out = swiftattn.scaled_dot_product_attention(*problems[number], is_causal=True)
                np.testing.assert_array_equal(out, expected[number])
                with pytest.raises(ValueError, match=f"axis.* {100 + number}"):  # the message is this thread's own
                    swiftattn.softmax(problems[number][0], axis=100 + number)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not failures and not any(worker.is_alive() for worker in workers)


def test_python_runs_during_a_call():
    """ctypes lets go of the interpreter lock: another thread advances while a call computes."""
    x = np.random.default_rng(1).standard_normal((4, 2000, 64)).astype(np.float32)
    done, ticks = threading.Event(), 0

    def call():
        swiftattn.scaled_dot_product_attention(x, x, x)
        done.set()

    worker = threading.Thread(target=call)
    worker.start()
    while not done.wait(0.001):
        ticks += 1
    worker.join()
    assert ticks > 0


@pytest.mark.once
@pytest.mark.parametrize("threads", ["1", "3"])
def test_fork_after_use(threads):
    code = (
        CALL
        + """
import os, sys
expected = call()
for generation in range(3):
    child = os.fork()
    if child == 0:
        got = call()
        os._exit(0 if all((a == b).all() for a, b in zip(got, expected)) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert all((a == b).all() for a, b in zip(call(), expected))
"""
    )
    run_python(code, OMP_NUM_THREADS=threads)


@pytest.mark.once
def test_multiprocessing_pool_after_use():
    code = (
        CALL
        + """
import multiprocessing
def work(_):
    return call()[0].sum()
if __name__ == "__main__":
    expected = call()[0].sum()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(work, range(6), chunksize=1) == [expected] * 6
"""
    )
    run_python(code)


@pytest.mark.once
def test_threads_from_the_environment():
    assert run_python("import swiftattn; print(swiftattn.get_num_threads())", OMP_NUM_THREADS="3") == "3"
    assert (
        run_python(
            "import swiftattn; swiftattn.set_num_threads(2); print(swiftattn.get_num_threads())", OMP_NUM_THREADS="5"
        )
        == "2"
    )
    code = """
import swiftattn
swiftattn.set_num_threads(2)
swiftattn.set_num_threads(0)
print(swiftattn.get_num_threads())
"""
    assert run_python(code, OMP_NUM_THREADS="5") == "5"


@pytest.mark.once
def test_threads_follow_the_affinity_mask():
    code = """
import os
os.environ.pop("OMP_NUM_THREADS", None)
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{count}])
{call}
call()
print(swiftattn.get_num_threads())
"""
    for count in {1, len(os.sched_getaffinity(0))}:
        assert run_python(code.format(count=count, call=CALL)) == str(count)


@pytest.mark.once
def test_affinity_narrowed_after_use():
    code = (
        CALL
        + """
import os
expected = call()
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
assert all((a == b).all() for a, b in zip(call(), expected))
"""
    )
    run_python(code)


@pytest.mark.once
@pytest.mark.parametrize("order", ["jax first", "swiftattn first", "between"])
def test_jax_in_the_same_process(order):
    use_jax = "import jax.numpy as jnp\ny = jnp.ones((200, 200)) @ jnp.ones((200, 200))\ny.block_until_ready()\n"
    parts = {
        "jax first": use_jax + CALL + "expected = call()\n",
        "swiftattn first": CALL + "expected = call()\n" + use_jax,
        "between": "import jax\n" + CALL + use_jax + "expected = call()\n",
    }[order]
    run_python(parts + use_jax + "assert all((a == b).all() for a, b in zip(call(), expected))")


@pytest.mark.once
def test_nothing_is_printed():
    code = CALL + "call()\ntry:\n swiftattn.softmax(x, axis=9)\nexcept ValueError:\n pass"
    assert run_python(code) == ""
