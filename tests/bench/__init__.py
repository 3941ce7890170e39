"""Benchmarks: this runner beside the asyncio engine of `openpectus`, on the same work.

    python -m tests.bench [--only NAME] [--json FILE]

Each measurement is a process of its own. `trio_side` and `asyncio_side` do the same jobs with
either runner, each with a stub engine over the values of `work`, so that only the runners differ.
They run under the same Python, each in an environment of its own, made by the first call. What
they send goes to `sink`, which answers Success and hardly looks, or to `op_receiver`, the server
side of `openpectus`. `_child` is how the command talks to them: lines of JSON.
"""
