"""Entry points for people: the operator's command line and the benchmarks. No logic lives here."""
