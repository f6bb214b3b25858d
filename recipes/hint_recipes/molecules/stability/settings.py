"""How the temperature rises, and when a bond counts as broken."""

from __future__ import annotations

from pydantic import Field, model_validator

from hint_plugins.settings import Settings


class RampSettings(Settings):
    """Settings of Langevin dynamics with a temperature ramp."""

    timestep: float = Field(
        0.5, gt=0, description="Time step of the dynamics, fs. Lower it when the total energy drifts."
    )
    friction: float = Field(
        0.01,
        gt=0,
        description="Friction of the Langevin bath, 1/fs. Lower it to disturb the dynamics less, raise it when the "
        "temperature lags behind.",
    )
    start_temperature: float = Field(
        0.0, ge=0, description="Temperature at the start, K. Raise it to skip temperatures that are harmless."
    )
    temperature_step: float = Field(
        5.0,
        gt=0,
        description="Rise of the temperature after every interval, K. Lower it for a sharper breaking temperature.",
    )
    interval: float = Field(
        5.0, gt=0, description="Time at each temperature, ps. Raise it to give slow reactions time."
    )
    max_temperature: float = Field(
        2000.0, ge=0, description="Temperature at which the ramp ends, K. Raise it when nothing breaks."
    )
    window: int = Field(
        50,
        ge=1,
        description="Number of steps over which bond lengths are averaged. Raise it when vibrations alone count as "
        "broken bonds.",
    )
    shortest: float = Field(
        0.75,
        gt=0,
        lt=1,
        description="A bond counts as broken below this multiple of its equilibrium length. Lower it when bonds that "
        "only vibrate count as broken.",
    )
    longest: float = Field(
        1.5,
        gt=1,
        description="A bond counts as broken above this multiple of its equilibrium length. Raise it when bonds that "
        "only vibrate count as broken.",
    )
    seed: int = Field(
        0, ge=0, description="Seed of the random forces. Change it to see how far the breaking temperature scatters."
    )

    @model_validator(mode="after")
    def _rises(self) -> RampSettings:
        if self.start_temperature > self.max_temperature:
            raise ValueError(
                "start_temperature must not be above max_temperature, got "
                f"{self.start_temperature} and {self.max_temperature}"
            )
        return self

    @property
    def steps_per_temperature(self) -> int:
        """Steps between two rises of the temperature."""
        return max(1, round(self.interval * 1000 / self.timestep))

    @property
    def num_steps(self) -> int:
        """Steps of a run that nothing breaks."""
        rises = int((self.max_temperature - self.start_temperature) / self.temperature_step + 1e-9)
        return (rises + 1) * self.steps_per_temperature

    def temperature(self, step: int) -> float:
        """Temperature of the bath (K) during the given step, counted from 0."""
        return self.start_temperature + self.temperature_step * (step // self.steps_per_temperature)
