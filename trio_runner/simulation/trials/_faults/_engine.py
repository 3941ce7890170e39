"""Faults of the engine, its process, disk and clock."""

from random import Random

import trio

from trio_runner._runner import EngineRunner
from trio_runner.protocol import aggregator_messages as am
from trio_runner.simulation.stand_ins._websocket import MESSAGE_BYTES_MAX
from trio_runner.simulation.trials._busy import MARKS_MAX, BusyEngine, EngineBug
from trio_runner.simulation.trials._faults._known import draw, fault, for_a_while
from trio_runner.simulation.trials._world import World

LINE_BYTES = 200
"""The largest size of a run log's line (bytes)."""


@fault
async def burst(world: World, rng: Random) -> None:
    """Let the engine send 5 to 60 notifications at once."""
    world.processes.with_engine(lambda engine, runner: engine.burst(runner, rng.randint(5, 60)))


@fault
async def toggle_runs(world: World, rng: Random) -> None:
    """Begin and end runs in quick succession."""
    for _ in range(rng.randint(1, 6)):
        world.processes.with_engine(lambda engine, runner: engine.toggle_run(runner))
        await trio.sleep(rng.choice((0.0, 0.01, 1.0)))


@fault
async def toggle_in_reading(world: World, rng: Random) -> None:
    """Begin and end runs while the tags are read, since an engine's thread does not wait for us."""

    def toggle_next_time(engine: BusyEngine, runner: EngineRunner) -> None:
        engine.in_reading = lambda: engine.toggle_run(runner)

    for _ in range(rng.randint(1, 6)):
        world.processes.with_engine(toggle_next_time)
        await trio.sleep(draw(rng, 0.5, 10))


@fault
async def big_archive(world: World, rng: Random) -> None:
    """End a run with a large archive, at most what the usual network carries in 5 s."""
    most = min(5e6, 5 * world.usual.bytes_per_s)
    size = int(draw(rng, 1e4, most))
    world.processes.note_size(size)

    with world.trouble():
        world.processes.with_engine(lambda engine, runner: engine.end_run(runner, size))
        await for_a_while(rng, 20)


@fault
async def huge_archive(world: World, rng: Random) -> None:
    """End a run whose archive is larger than any message that an aggregator takes."""
    size = rng.randint(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 2**20)
    world.processes.with_engine(lambda engine, runner: engine.end_run(runner, size))


@fault
async def long_run_log(world: World, rng: Random) -> None:
    """Let the run log grow by many lines, then be short again."""
    lines = int(draw(rng, 50, 1000))
    world.processes.note_size(LINE_BYTES * lines)

    def grow(engine: BusyEngine, runner: EngineRunner) -> None:
        engine.marks_max = lines
        for _ in range(lines):
            engine.mark()

    with world.trouble():
        engines = world.processes.with_engine(grow)
        try:
            with trio.move_on_after(draw(rng, 1, 60)):
                while True:
                    await trio.sleep(0.5)
                    world.processes.with_engine(lambda engine, _: engine.mark())
        finally:
            for engine in engines:
                engine.marks_max = MARKS_MAX
                engine.mark()


@fault
async def costly_run_log(world: World, rng: Random) -> None:
    """Let each run log take up to 0.4 s of Trio's thread to make."""
    cost_s = draw(rng, 0.02, 0.4)

    def make_costly(engine: BusyEngine, runner: EngineRunner) -> None:
        engine.run_log_cost_s = cost_s
        engine.begin_run(runner)

    with world.trouble():
        engines = world.processes.with_engine(make_costly)
        try:
            await for_a_while(rng)
        finally:
            for engine in engines:
                engine.run_log_cost_s = 0.0


@fault
async def restless_run_log(world: World, rng: Random) -> None:
    """Let the run log differ each time that it is asked for."""

    def make_restless(engine: BusyEngine, runner: EngineRunner) -> None:
        engine.is_restless = True
        engine.begin_run(runner)

    engines = world.processes.with_engine(make_restless)
    try:
        await trio.sleep(draw(rng, 5, 180))
    finally:
        for engine in engines:
            engine.is_restless = False


@fault
async def noisy_log(world: World, rng: Random) -> None:
    """Let the engine log ten errors a second, more often than it is sampled."""
    with trio.move_on_after(draw(rng, 1, 60)):
        while True:
            world.processes.with_engine(lambda engine, _: engine.log_error())
            await trio.sleep(0.1)


@fault
async def tag_storm(world: World, rng: Random) -> None:
    """Let every sample have 5 to 100 more tags."""
    size = rng.randint(5, 100)
    engines = world.processes.with_engine(lambda engine, _: setattr(engine, "storm", size))
    try:
        await for_a_while(rng, 20)
    finally:
        for engine in engines:
            engine.storm = 0


BUILDERS = "control state", "errors", "events", "method", "tags", "unit"
"""The messages whose builder may have a bug."""


@fault
async def bug(world: World, rng: Random) -> None:
    """Let one of the engine's message builders raise, or a callback, which ends the process."""
    if rng.random() < 0.2:
        await _bug_in_a_callback(world, rng)
    else:
        await _bug_in_a_builder(world, rng.choice(BUILDERS))


async def _bug_in_a_builder(world: World, message: str) -> None:
    def break_builder(engine: BusyEngine, runner: EngineRunner) -> None:
        engine.bug_in = message
        if message == "events":
            engine.toggle_run(runner)
            engine.notify(runner)

    oracle = world.oracle
    if oracle.fails_to_make:
        return  # one at a time
    with world.trouble(), oracle.failing(message):
        engines = world.processes.with_engine(break_builder)
        if engines and message in ("control state", "errors", "method", "tags"):
            # The next sample asks for these.
            oracle.told.await_word("a message could not be made")
        if message == "unit":
            world.network.reset()  # only a new link needs it
        try:
            await trio.sleep(6)  # without a link, samples may be 5 s apart
        finally:
            for engine in engines:
                engine.bug_in = ""


async def _bug_in_a_callback(world: World, rng: Random) -> None:
    name = rng.choice(("failed", "catchingup", "reconnected")) + "_callback"

    async def callback() -> None:
        raise EngineBug("a callback that fails")

    runners: list[EngineRunner] = []
    world.processes.with_engine(lambda _, runner: runners.append(runner))
    for runner in runners:
        setattr(runner, name, callback)
    world.network.reset()
    try:
        await trio.sleep(6)
    finally:
        for runner in runners:
            setattr(runner, name, None)


async def _slow() -> None:
    await trio.sleep(8)


async def _failing() -> None:
    raise ValueError("a command handler with a bug")


async def _failing_late() -> None:
    await trio.sleep(1)
    raise ValueError("a command handler with a bug that shows late")


async def _failing_in_its_cleanup() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("a command handler with a bug in its clean-up")


MOODS = (_slow, _failing, _failing_late, _failing_in_its_cleanup)
"""The ways in which a handler may carry out a command."""


@fault
async def bad_handlers(world: World, rng: Random) -> None:
    """Let the engine's command handlers be slow or raise, even while they are cancelled."""
    mood = rng.choice(MOODS)
    engines = world.processes.with_engine(lambda engine, _: setattr(engine, "mood", mood))
    world.callers.slow_handlers += 1
    try:
        for _ in range(rng.randint(1, 6)):
            await world.callers.call(am.InjectCodeMsg(pcode="Mark: A"))
            await for_a_while(rng, 10)
    finally:
        world.callers.slow_handlers -= 1
        for engine in engines:
            engine.mood = None


@fault
async def stuck_handlers(world: World, rng: Random) -> None:
    """Let command handlers wait as if in threads, where no cancellation reaches them."""
    released = trio.Event()

    async def stuck() -> None:
        with trio.CancelScope(shield=True):
            await released.wait()

    engines = world.processes.with_engine(lambda engine, _: setattr(engine, "mood", stuck))
    world.callers.slow_handlers += 1
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(rng.randint(1, 20)):
                nursery.start_soon(world.callers.call, am.InjectCodeMsg(pcode="Mark: A"))
                await trio.sleep(draw(rng, 0.01, 5))
            await for_a_while(rng)
    finally:
        released.set()
        world.callers.slow_handlers -= 1
        for engine in engines:
            engine.mood = None


@fault
async def stop_process(world: World, rng: Random) -> None:
    """Stop the process cleanly; it starts again."""
    await world.processes.stop()


@fault
async def stop_at_once(world: World, rng: Random) -> None:
    """Stop the process cleanly, and the next one as soon as it starts."""
    before = world.processes.now
    await world.processes.stop()
    with trio.move_on_after(20):
        await world.processes.born.wait_until(lambda: world.processes.now not in (None, before))
        await world.processes.stop()


@fault
async def stop_on_the_way(world: World, rng: Random) -> None:
    """Stop the process cleanly while it is between two links or is catching up."""
    process = world.processes.now
    if process is None:
        return
    reached = trio.Event()

    async def linger() -> None:
        reached.set()
        await trio.sleep(1)

    callback = rng.choice(("failed_callback", "reconnecting_callback", "catchingup_callback"))
    setattr(process.runner, callback, linger)
    world.network.reset()
    with trio.move_on_after(20):
        await reached.wait()
        await world.processes.stop()
    setattr(process.runner, callback, None)


@fault
async def kill_process(world: World, rng: Random) -> None:
    """Kill the process; it starts again."""
    world.processes.kill(power=False)


@fault
async def power_cut(world: World, rng: Random) -> None:
    """Cut the engine's power, so that no connection is closed and the aggregator hears nothing."""
    with world.trouble():
        world.processes.kill(power=True)
        try:
            await for_a_while(rng)
        finally:
            world.processes.forget_the_dead()


@fault
async def torn_write(world: World, rng: Random) -> None:
    """Cut the engine's power in the middle of a write."""
    if world.disk is not None:
        world.disk.tears = True
        try:
            await trio.sleep(5)
        finally:
            world.disk.tears = False  # nothing was written
            world.processes.forget_the_dead()


@fault
async def disk_full(world: World, rng: Random) -> None:
    """Let the disk be full."""
    if world.disk is not None:
        world.disk.is_full = True
        try:
            await for_a_while(rng)
        finally:
            world.disk.is_full = False


@fault
async def spoilt_log(world: World, rng: Random) -> None:
    """Kill the process, and let the disk spoil part of what was written."""
    if world.disk is not None:
        world.processes.kill(power=False)
        world.disk.spoil_log()
        world.oracle.identities.may_go_back()


@fault
async def rename_host(world: World, rng: Random) -> None:
    """Give the engine's computer another name, and stop or kill the process."""
    world.processes.rename()
    if rng.random() < 0.5:
        await world.processes.stop()
    else:
        world.processes.kill(power=False)


@fault
async def slow_disk(world: World, rng: Random) -> None:
    """Let the disk take 20 ms to 5 s for each commit."""
    if world.disk is not None:
        with world.oracle.slow_disk():
            world.disk.commit_s = draw(rng, 0.02, 5)
            try:
                await for_a_while(rng)
            finally:
                world.disk.commit_s = 0.0


@fault
async def hanging_disk(world: World, rng: Random) -> None:
    """Let the disk write nothing for a while, then everything."""
    if world.disk is not None:
        with world.oracle.slow_disk(), world.disk.hanging():
            await for_a_while(rng)


@fault
async def clock_jump(world: World, rng: Random) -> None:
    """Move the wall clock forward or back by 0.1 s to 100,000 s."""
    world.processes.clock_offset_s += rng.choice((-1, 1)) * 0.1 * 1e6 ** rng.random()
