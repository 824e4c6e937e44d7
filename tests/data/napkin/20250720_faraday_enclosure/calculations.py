"""What PlanExe's language model is asked to write: the formula_hint of each calculation in parameters.json, as a function."""


def month12_net_cash_margin_eur(actual_net_cash_month12_eur: float, net_cash_target_month12_eur: float) -> float:
    """Month-12 net-cash margin against the €50k funder trigger (EUR)."""
    return actual_net_cash_month12_eur - net_cash_target_month12_eur


def iso_run_sellthrough_margin(actual_sellthrough_share: float, sell_through_target_share: float) -> float:
    """ISO-run sell-through margin against the 75% threshold (fraction)."""
    return actual_sellthrough_share - sell_through_target_share


def milstd_funding_margin_eur(actual_year1_gross_profit_eur: float, mil_std_cert_cost_eur: float) -> float:
    """MIL-STD certification funding margin (EUR)."""
    return actual_year1_gross_profit_eur - mil_std_cert_cost_eur


def presale_conversion_margin(actual_presale_conversion_share: float, presale_conversion_target_share: float) -> float:
    """Pre-sale conversion margin against the 5% floor (fraction)."""
    return actual_presale_conversion_share - presale_conversion_target_share


def eu_emc_cert_budget_margin_eur(eu_emc_cert_budget_eur: float, actual_eu_emc_cert_cost_eur: float) -> float:
    """EU EMC certification budget margin (EUR)."""
    return eu_emc_cert_budget_eur - actual_eu_emc_cert_cost_eur
