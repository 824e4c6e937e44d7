"""Napkin calculations of a clinic: doses, stocks, and how long they last.

[corpus]
habit = "several formulas with a rounding of its own, as a language model writes them"
inputs = [{patients = 120, dose_mg = 250, per_day = 3, stock_kg = 5}]
outputs = [{grams_per_day = 90.0, days = 55}]
runs = 3
"""


def grams_per_day(patients: int, dose_mg: float, per_day: int) -> float:
    return patients * dose_mg * per_day / 1000


def days_of_stock(stock_kg: float, grams: float) -> int:
    return int(stock_kg * 1000 // grams)


def run(payload, context):
    grams = grams_per_day(payload["patients"], payload["dose_mg"], payload["per_day"])
    return {"grams_per_day": grams, "days": days_of_stock(payload["stock_kg"], grams)}
