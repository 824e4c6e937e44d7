"""What PlanExe's language model is asked to write: the formula_hint of each calculation in parameters.json, as a function."""


def crate_recovery_volume_margin_units(actual_crate_recovery_units: float, target_recovery_units: float) -> float:
    """Crate-recovery volume margin against the 108,000-unit target (crates)."""
    return actual_crate_recovery_units - target_recovery_units


def budget_surplus_dkk(total_budget_dkk: float, actual_program_spend_dkk: float) -> float:
    """Program budget surplus against the DKK 4M ceiling (DKK)."""
    return total_budget_dkk - actual_program_spend_dkk


def donation_margin_dkk(actual_donation_dkk: float, min_donation_dkk: float) -> float:
    """Arla Foundation donation margin against the DKK 500K floor (DKK)."""
    return actual_donation_dkk - min_donation_dkk


def social_impressions_margin(actual_social_impressions: float, target_impressions: float) -> float:
    """Social-impressions margin against the 20M virality target (impressions)."""
    return actual_social_impressions - target_impressions


def per_crate_handling_cost_margin_dkk(
    per_crate_handling_cost_threshold_dkk: float, actual_per_crate_handling_cost_dkk: float
) -> float:
    """Per-crate handling-cost margin against the DKK 10 channel-review trigger (DKK_per_crate)."""
    return per_crate_handling_cost_threshold_dkk - actual_per_crate_handling_cost_dkk
