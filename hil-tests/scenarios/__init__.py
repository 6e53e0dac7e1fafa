"""Scenarios with real binaries. Each module is one family, each function of `SCENARIOS` one claim."""
