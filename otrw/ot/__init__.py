"""Optimal transport as pure tensor maths: no collectives, no config, no state.

Symbols: K reference atoms with mass a, n samples with mass b (the weights), cost C (K, n), regulariser epsilon, dual
potentials f (K,) and g (n,). The transport plan is P_kn = exp((f_k + g_n - C_kn) / epsilon).
"""
