"""What PlanExe's language model is asked to write: the formula_hint of each calculation in parameters.json, as a function."""


def year1_registration_volume_margin_units(
    actual_year1_registrations_units: float, year1_breakeven_threshold_units: float
) -> float:
    """Year-1 registration-volume margin against the 5,000-domain break-even floor (domains)."""
    return actual_year1_registrations_units - year1_breakeven_threshold_units


def delegation_timing_margin_months(delegation_deadline_months: float, actual_delegation_months: float) -> float:
    """ICANN delegation timing margin against the 18-month deadline (months)."""
    return delegation_deadline_months - actual_delegation_months


def budget_surplus_usd(budget_high_usd: float, actual_year1_total_cost_usd: float) -> float:
    """Year-1 budget surplus against the $100M envelope (USD)."""
    return budget_high_usd - actual_year1_total_cost_usd


def mars_mos_margin_kbps(actual_mars_endpoint_kbps: float, mars_mos_kbps: float) -> float:
    """Mars MOS margin against the 100 kbps requirement (kbps)."""
    return actual_mars_endpoint_kbps - mars_mos_kbps


def hsm_capex_adequacy_margin_usd(actual_hsm_capex_usd: float, hsm_capex_min_usd: float) -> float:
    """HSM-CapEx adequacy margin against the $5M sovereignty floor (USD)."""
    return actual_hsm_capex_usd - hsm_capex_min_usd
