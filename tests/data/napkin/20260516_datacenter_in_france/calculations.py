"""What PlanExe's language model is asked to write: the formula_hint of each calculation in parameters.json, as a function."""


def buffer_annual_holding_cost_eur(buffer_annual_holding_cost_per_ha_eur: float, buffer_area_km2: float) -> float:
    """Annual buffer-land holding cost (EUR_per_year)."""
    return buffer_annual_holding_cost_per_ha_eur * buffer_area_km2 * 100


def buffer_total_holding_cost_eur(buffer_annual_holding_cost_eur: float, buffer_holding_period_months: float) -> float:
    """Buffer-land holding cost over the 18-month Phase 1 ring-fence window (EUR)."""
    return buffer_annual_holding_cost_eur * buffer_holding_period_months / 12


def phase1_budget_surplus_eur(
    phase1_budget_max_eur: float,
    phase1_baseline_capex_eur: float,
    brownfield_remediation_actual_eur: float,
    buffer_total_holding_cost_eur: float,
) -> float:
    """Phase 1 CAPEX surplus after baseline build, remediation, and buffer holding (EUR)."""
    return (
        phase1_budget_max_eur
        - phase1_baseline_capex_eur
        - brownfield_remediation_actual_eur
        - buffer_total_holding_cost_eur
    )


def phase2_fid_margin(tenant_take_or_pay_actual_share: float, phase2_take_or_pay_threshold_share: float) -> float:
    """Phase 2 FID tenant-commitment margin (fraction)."""
    return tenant_take_or_pay_actual_share - phase2_take_or_pay_threshold_share


def phase1_pue_margin(phase1_pue_target_max: float, phase1_pue_actual: float) -> float:
    """Phase 1 PUE margin against the 1.20 ceiling (ratio)."""
    return phase1_pue_target_max - phase1_pue_actual
