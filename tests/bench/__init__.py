"""Benchmarks: this runner and the asyncio engine of `openpectus`, on the same work.

    python -m tests.bench [--only NAME] [--json FILE]

Each measurement is a process. `trio_side` and `asyncio_side` do the same jobs, each with one of the
runners and with a stub engine over the values of `work`, so that only the runners differ. Both use
the same Python, each in its own environment, which the first call makes. What they send goes to
`sink`, which answers Success and hardly looks at it, or to `op_receiver`, the server side of
`openpectus`. `_child` lets the command talk to them in lines of JSON.
"""
