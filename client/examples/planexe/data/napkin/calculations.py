"""Calculations for the night bus, as a language model writes them from parameters.json."""


def investment_eur(bus_price_eur: float, chargers_units: float, charger_cost_eur: float) -> float:
    """Bus and chargers (EUR)."""
    return bus_price_eur + chargers_units * charger_cost_eur


def budget_surplus_eur(council_budget_eur: float, region_grant_eur: float, investment_eur: float) -> float:
    """What is left of the money (EUR); negative: the bus cannot be bought."""
    return council_budget_eur + region_grant_eur - investment_eur


def fares_per_year_eur(
    departures_per_year: float, seats_per_departure: float, occupancy_share: float, fare_eur: float
) -> float:
    """Fares of a year (EUR_per_year)."""
    return departures_per_year * seats_per_departure * occupancy_share * fare_eur


def operating_margin_eur(fares_per_year_eur: float, running_cost_per_year_eur: float) -> float:
    """Fares beyond the running costs (EUR_per_year)."""
    return fares_per_year_eur - running_cost_per_year_eur


def payback_years(investment_eur: float, operating_margin_eur: float) -> float:
    """Years until the margin has paid for the bus. Raises ValueError where there is no margin."""
    if operating_margin_eur <= 0:
        raise ValueError("there is no margin to pay from")
    return investment_eur / operating_margin_eur
