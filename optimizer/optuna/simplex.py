"""Mixtures within floors and caps: uniform draws without distortion, and a map of any weights onto them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError

Floats = NDArray[np.float64]

#: Floors may pass 1, and caps miss it, by this: the rounding of shares that a person typed.
ROUNDING = 1e-9
#: Draws tried at once before walks inside of tight caps take over.
TRIED = 1024
#: Steps of a walk for each domain.
WALK = 64


@dataclass(frozen=True, eq=False)
class Simplex:
    """Shares of K domains that sum to 1, each between its floor and its cap.

    Attributes:
        domains: names, the order of every array below.
        low, high: floors and caps, (K,).

    Raises:
        InputError: no domains or one twice, a bound outside 0..1, or bounds that no mixture keeps.
    """

    domains: tuple[str, ...]
    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        if not self.domains or len(set(self.domains)) < len(self.domains):
            raise InputError(f"a mixture needs domains of different names, got {list(self.domains)}; name each once")
        bounds = dict(zip(self.domains, zip(self.low.tolist(), self.high.tolist(), strict=True), strict=True))
        wrong = {name: pair for name, pair in bounds.items() if not 0 <= pair[0] <= pair[1] <= 1}
        if wrong:
            raise InputError(f"shares lie between floor and cap, 0 <= floor <= cap <= 1, got {wrong}; fix the bounds")
        if self.low.sum() > 1 + ROUNDING:
            raise InputError(f"floors must sum to 1 at most, got {self.low.sum():.6g}; lower one of {self.domains}")
        if self.high.sum() < 1 - ROUNDING:
            raise InputError(f"caps must sum to 1 at least, got {self.high.sum():.6g}; raise one of {self.domains}")

    @classmethod
    def of(cls, domains: tuple[str, ...], floors: Mapping[str, float], caps: Mapping[str, float]) -> Simplex:
        """Mixtures of these domains; floors are 0 and caps 1 where they are not given.

        Raises:
            InputError: as above, or a bound on a domain that is not there.
        """
        unknown = [name for name in (*floors, *caps) if name not in domains]
        if unknown:
            raise InputError(f"a limit names domain {unknown[0]!r}, the domains are {', '.join(domains)}; rename it")
        low = np.array([floors.get(name, 0.0) for name in domains], dtype=np.float64)
        high = np.array([caps.get(name, 1.0) for name in domains], dtype=np.float64)
        return cls(domains, low, high)

    def pinned(self, shares: Mapping[str, float]) -> Simplex:
        """The mixtures in which some domains have these shares; itself where there are none."""
        at = np.array([shares.get(name, np.nan) for name in self.domains], dtype=np.float64)
        free = np.isnan(at)
        low, high = np.where(free, self.low, at), np.where(free, self.high, at)
        possible = low.sum() <= 1 + ROUNDING and high.sum() >= 1 - ROUNDING and bool((low >= 0).all())
        return Simplex(self.domains, low, high) if possible else self

    def uniform(self, count: int, rng: np.random.Generator) -> Floats:
        """Mixtures, every one equally likely, (count, K); without bounds this is Dirichlet(1, ..., 1).

        Floors move and scale the simplex, which keeps the distribution uniform; caps cut it, by rejection. Where they
        leave too little for that, hit-and-run walks inside (Smith 1984) forget their start.
        """
        free = self.high > self.low
        if not free.any():
            return np.tile(self.low, (count, 1))
        capped = bool((self.high[free] < 1).any())
        tried = np.tile(self.low, (max(TRIED, 4 * count) if capped else count, 1))
        tried[:, free] += (1 - self.low.sum()) * rng.dirichlet(np.ones(free.sum()), len(tried))
        inside = tried[(tried <= self.high + ROUNDING).all(1)] if capped else tried
        return inside[:count] if len(inside) >= count else self._walked(count, rng)

    def read(self, weights: Floats) -> Floats:
        """Mixtures from any weights, (..., K): what they have above the floors is scaled until shares sum to 1.

            share_j = low_j + min(high_j - low_j, scale (weight_j - low_j))

        A mixture within the bounds is itself; without bounds this divides by the sum.
        """
        room, above = self.high - self.low, np.maximum(weights - self.low, 0.0)
        mass = 1 - self.low.sum()
        short = np.where(above > 0, room, 0.0).sum(-1, keepdims=True) < mass
        above = np.where(short, np.maximum(above, 1e-12 * room), above)  # caps ask for domains of no weight, too
        full, scale = np.zeros(above.shape, bool), np.ones(above.shape)
        for _ in self.domains:  # in each round another domain reaches its cap, or all is done
            rest = np.where(full, 0.0, above).sum(-1, keepdims=True)
            given = mass - np.where(full, room, 0.0).sum(-1, keepdims=True)
            scale = np.divide(given, rest, out=np.zeros_like(rest), where=rest > 0)
            full = full | (scale * above > room)
        shares = self.low + np.where(full, room, scale * above)
        return np.asarray(shares / shares.sum(-1, keepdims=True))

    def near(self, shares: Floats, width: float, rng: np.random.Generator) -> Floats:
        """Mixtures close to these, (N, K): log shares moved by `width`, some domains dropped to their floors."""
        moved = np.maximum(shares - self.low, 1e-3) * np.exp(width * rng.normal(size=shares.shape))
        dropped = rng.random(shares.shape) < 0.3 * width / len(self.domains)
        return self.read(self.low + np.where(dropped, 0.0, moved))

    def _walked(self, count: int, rng: np.random.Generator) -> Floats:
        """Hit and run: again and again a random direction, and uniformly as far as the bounds allow, (count, K)."""
        free = self.high > self.low
        here = np.tile(self.read(self.low + 0.5 * (self.high - self.low)), (count, 1))
        low, high = self.low[free], self.high[free]
        for _ in range(WALK * len(low)):
            step = rng.normal(size=(count, len(low)))
            step -= step.mean(1, keepdims=True)
            ends = np.stack([low - here[:, free], high - here[:, free]]) / step
            back, ahead = ends.min(0).max(1).clip(max=0), ends.max(0).min(1).clip(min=0)
            here[:, free] += step * rng.uniform(back, ahead)[:, None]
        return self.read(np.clip(here, self.low, self.high))
