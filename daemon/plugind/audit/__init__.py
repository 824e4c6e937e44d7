"""The ledger: what was decided and what ran, before and after."""
