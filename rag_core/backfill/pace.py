"""How fast a backfill goes, and when it will be done: from what it did so far, before that from earlier runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Progress of a backfill.

    Attributes:
        weight: Objects to do in all.
        expected_s: Seconds that all of it would take by the throughput of earlier runs; None if nothing was measured.
        done: Objects that this session brought to an end, whatever became of them.
        seconds: Seconds that its runs took for it; pauses and waiting are not among them.
        done_before: Objects that earlier sessions did.
    """

    weight: int
    expected_s: float | None = None
    done: int = 0
    seconds: float = 0.0
    done_before: int = 0

    def after(self, done: int, seconds: float) -> "Pace":
        """Add a run."""
        return Pace(self.weight, self.expected_s, self.done + done, self.seconds + seconds, self.done_before)

    @property
    def left(self) -> int:
        """Objects that are still to be done."""
        return max(0, self.weight - self.done - self.done_before)

    @property
    def objects_per_s(self) -> float | None:
        """Objects a second in this session; None before its first run ended."""
        return self.done / self.seconds if self.done and self.seconds else None

    @property
    def eta_s(self) -> float | None:
        """Seconds of work that are left; None if nothing is known of the speed."""
        if not self.left:
            return 0.0
        if (rate := self.objects_per_s) is not None:
            return self.left / rate
        return None if self.expected_s is None else self.expected_s * self.left / max(1, self.weight)


def spoken(seconds: float | None) -> str:
    """Say a duration as people do: 40 s, 12 min, 3 h 20 min."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
