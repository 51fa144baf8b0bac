"""What a sample of the profiler counts as."""

from __future__ import annotations

import pytest

from bench.shares import Frame, Shares, part_of, stacks

KERNEL = "[kernel.kallsyms]"

PRINTED = """\
27757
\t           fc382 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)
\t    7fb38796ae40 [unknown] ([unknown])

27806
\tffffffff81249fb2 _copy_to_iter ([kernel.kallsyms])
\tffffffff821ed511 tcp_recvmsg ([kernel.kallsyms])
"""


def test_samples_are_read_as_perf_prints_them() -> None:
    assert list(stacks(PRINTED.splitlines())) == [
        (
            27757,
            [
                ("_PyEval_EvalFrameDefault", "/usr/lib/libpython3.11.so.1.0"),
                ("[unknown]", "[unknown]"),
            ],
        ),
        (27806, [("_copy_to_iter", KERNEL), ("tcp_recvmsg", KERNEL)]),
    ]


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        ([("_copy_to_iter", KERNEL), ("tcp_recvmsg", KERNEL)], "kernel: copies"),
        ([("kfree", KERNEL), ("tcp_recvmsg", KERNEL)], "kernel: network"),
        ([("kfree", KERNEL), ("ext4_dio_write_iter", KERNEL)], "kernel: disk"),
        ([("clear_page_erms", KERNEL), ("exc_page_fault", KERNEL)], "kernel: memory"),
        ([("do_futex", KERNEL), ("futex_wait", "/lib/libc.so.6")], "kernel: threads and waits"),
        ([("do_syscall_64", KERNEL), ("tcp_ish", "/lib/libc.so.6")], "kernel: the rest"),
        ([("_blake3_hash_many", "/x/blake3.cpython-311.so")], "hash"),
        ([("_PyType_Lookup", "/usr/lib/libpython3.11.so.1.0")], "Python and libraries"),
    ],
)
def test_the_innermost_frame_decides_and_in_the_kernel_its_callers(
    stack: list[Frame], part: str
) -> None:
    assert part_of(stack) == part


def test_the_table_has_both_sides_and_their_sum() -> None:
    shares = Shares(1, {"giver": {"hash": 0.0}, "taker": {"hash": 0.3, "kernel: copies": 0.1}})
    lines = shares.as_table().splitlines()
    assert lines[2] == "| hash | 0.00 | 0.30 | 75% |"
    assert lines[-1] == "| all | 0.00 | 0.40 | 100% |"
