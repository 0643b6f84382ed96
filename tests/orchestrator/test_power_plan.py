"""What so many seeds can show: against the exact sums, and through `seedbed plan --power`."""

import json

import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from jobs.errors import QueryError
from orchestrator.cli import app
from orchestrator.estimates.power import chance_of_half_width, fisher_power
from orchestrator.estimates.success import wilson
from orchestrator.power_plan import Wanted, can_show, needed, power_plan
from tests.orchestrator.conftest import STUDY


@pytest.mark.parametrize("seeds", [1, 2, 10, 25])
def test_what_seeds_show_is_exact(seeds: int) -> None:
    found = can_show(seeds)
    bounds = [wilson(k, seeds) for k in range(seeds + 1)]
    assert found.half_width == pytest.approx(max(high - low for low, high in bounds) / 2)
    assert (1 - found.excluded) ** seeds == pytest.approx(0.05)
    for weight, chance in found.modes.items():
        least = sum(binom.pmf(k, seeds, weight) for k in range(2, seeds - 1))
        assert chance == pytest.approx(least, abs=1e-12)
    for p, other in found.apart.items():
        if other is None:
            assert fisher_power(seeds, seeds, p, 1.0) < 0.8
        else:
            assert fisher_power(seeds, seeds, p, other) >= 0.8 > fisher_power(seeds, seeds, p, other - 0.01)


def test_needed_seeds_are_enough_and_no_fewer_are() -> None:
    found = needed(Wanted(half_width=0.2, p=0.3, mode=0.2, apart=(0.2, 0.7), chance=0.8))
    n = found.for_half_width
    assert chance_of_half_width(n, 0.2, 0.3) >= 0.8 > chance_of_half_width(n - 1, 0.2, 0.3)
    n = found.to_tell_apart
    assert fisher_power(n, n, 0.2, 0.7) >= 0.8 > fisher_power(n - 1, n - 1, 0.2, 0.7)
    assert can_show(found.for_mode).modes[0.2] >= 0.8 > can_show(found.for_mode - 1).modes[0.2]


def test_conditions_of_unequal_seeds_are_told_each(tmp_path: object) -> None:
    found = power_plan("s", [8, 12, 8], Wanted())
    assert found.declared == {8: 2, 12: 1}
    assert [shows.seeds for shows in found.shows] == [8, 12]


@pytest.mark.parametrize(
    "wanted",
    [Wanted(half_width=0.6), Wanted(mode=1.2), Wanted(apart=(0.3, 0.3)), Wanted(p=0.0), Wanted(chance=1.0)],
)
def test_what_no_number_of_seeds_can_show_is_refused(wanted: Wanted) -> None:
    with pytest.raises(QueryError):
        needed(wanted)


def test_the_verb(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    arguments = ["plan", "tiny.yaml", "--power", "--half-width", "0.2", "--apart", "0.2", "0.8"]
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).output)
    assert told["declared"] == {"3": 2}
    assert told["needed"]["to_tell_apart"] == needed(Wanted(0.2, 0.5, 0.1, (0.2, 0.8))).to_tell_apart
    text = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "P = 0.2 from P = 0.8 (Fisher, 5 %)" in text
    assert "With 3 seeds a condition P(success) is known to" in text
    assert "0.3 from no other" in text
    assert not (tmp_path / "seedbed-store").exists()
