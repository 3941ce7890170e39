"""A bioreactor, simulated: temperature, pH, stirrer, aeration, with a method and a plot.

Start an aggregator (`pectus-aggregator`), run this, and open http://127.0.0.1:9800. A method:

    Temperature: 37 degC
    Stirrer: 400 rpm
    Inoculate: 0.5 g/L
    Wait: 60 s
    Stop
"""

import logging
import random

import trio

from trio_runner import CommandError, EngineDispatcher, EngineRunner, PlainEngine


class Bioreactor(PlainEngine):
    def __init__(self, name: str = "Bioreactor", **options: object) -> None:
        super().__init__(name, data_log_interval_s=1, **options)  # type: ignore[arg-type]
        self.celsius, self.target, self.ph, self.rpm = 22.0, 22.0, 7.0, 0.0
        self.gas, self.biomass = "Off", 0.0
        read, command = self.add_reading, self.add_command
        read("Temperature", lambda: self.celsius, "degC", between=(20, 45), enter=self.heat)
        read("pH", lambda: self.ph, digits=2, between=(4, 10))
        read("Stirrer", lambda: self.rpm, "rpm", between=(0, 1200), enter=self.stir)
        read("Biomass", lambda: self.biomass, "g/L", digits=2, between=(0, 10))
        read("Gas", lambda: self.gas, choices=("Off", "Air", "Oxygen"), enter=self.aerate)
        command("Inoculate", self.inoculate, "g/L", between=(0.1, 1))
        command("Wait", trio.sleep, "s", between=(0, 86_400))
        command("Stop", self.stop_run)
        self.add_plot("Temperature", "pH")
        self.add_plot("Stirrer", "Biomass")

    def heat(self, celsius: float) -> None:
        """Keep this temperature."""
        self.target = celsius

    def stir(self, rpm: float) -> None:
        """Run the stirrer at this speed."""
        self.rpm = rpm

    def aerate(self, gas: str) -> None:
        """Bubble this gas through the broth."""
        self.gas = gas

    async def inoculate(self, grams: float) -> None:
        """Add a culture, which takes 3 s."""
        if not self.rpm:
            raise CommandError("Start the stirrer before you inoculate")
        await trio.sleep(3)
        self.biomass += grams

    async def simulate(self) -> None:
        while True:
            await trio.sleep(0.1)
            self.celsius += (self.target - self.celsius) * 0.01 + random.gauss(0, 0.02)
            growth = self.biomass * 0.002 * (1 if self.gas == "Off" else 2)
            self.biomass = min(self.biomass + growth, 9)
            self.ph = max(self.ph - growth / 4, 4.5)


async def main(port: int = 9800) -> None:
    logging.basicConfig(level=logging.INFO)
    reactor = Bioreactor(location="Lab 1")
    dispatcher = EngineDispatcher("127.0.0.1", port, handlers=reactor)
    runner = EngineRunner(dispatcher, message_builder=reactor, emitter=reactor)
    async with trio.open_nursery() as nursery:
        for task in (reactor.simulate, reactor.run_commands, runner.run):
            nursery.start_soon(task)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass  # the runner has sent what still waited
