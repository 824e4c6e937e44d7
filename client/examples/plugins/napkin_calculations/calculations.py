"""Napkin maths for a plan: small pure functions, as PlanExe has them written by a language model.

This plugin's interface is "functions": every public function that is *defined here* can be called with keyword
arguments. A call is {"function": NAME, "arguments": {…}}; a list of calls gives a list of values, so that one run
of the plugin answers a whole scenario or a whole Monte Carlo batch. A call that raises becomes
{"error": {"type": …, "message": …}} and does not disturb the others.
"""

LITRES_PER_M3 = 1000


def total_cost_eur(planned_cost_eur: float, contingency_share: float) -> float:
    """Planned cost with its contingency on top."""
    return planned_cost_eur * (1 + contingency_share)


def grant_margin_eur(grant_awarded_eur: float, total_cost_eur: float) -> float:
    """What is left of the grant; negative: what is missing."""
    return grant_awarded_eur - total_cost_eur


def annual_water_cost_eur(
    garden_area_m2: float, water_litres_per_m2_per_year: float, water_price_eur_per_m3: float
) -> float:
    """Water bill of a year if the rainwater tank stays empty."""
    return garden_area_m2 * water_litres_per_m2_per_year / LITRES_PER_M3 * water_price_eur_per_m3


def roof_load_margin_kg_per_m2(
    roof_load_limit_kg_per_m2: float, soil_depth_cm: float, saturated_soil_kg_per_m2_per_cm: float
) -> float:
    """Load the roof could still carry once the soil is wet; negative: do not build this."""
    return roof_load_limit_kg_per_m2 - soil_depth_cm * saturated_soil_kg_per_m2_per_cm


def volunteer_hours_margin(
    volunteers: float, hours_per_volunteer_per_month: float, hours_needed_per_month: float
) -> float:
    """Hours that volunteers give beyond those the garden needs, a month."""
    return volunteers * hours_per_volunteer_per_month - hours_needed_per_month


def cost_per_visitor_eur(annual_running_cost_eur: float, annual_visitors: float) -> float:
    """Running cost for each visit. Raises ZeroDivisionError where nobody comes."""
    return annual_running_cost_eur / annual_visitors
