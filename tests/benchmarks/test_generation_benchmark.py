"""What the benchmark of generation reports of memory is the child's own."""

from tests.benchmarks.generation import peak_of


def test_a_peak_is_that_of_the_work_alone():
    own = bytearray(300 * 2**20)
    own[::4096] = b"x" * len(own[::4096])  # every page is there
    idle, busy = peak_of("pass"), peak_of("work = b'x' * (100 * 2**20)")
    assert 2 < idle < 100 and 95 < busy - idle < 110
