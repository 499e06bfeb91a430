"""Everything that happens around and after training: runs, tests of amortization, metrics, figures."""
