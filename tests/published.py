"""Published numbers that tests compare with, each with its source."""

from __future__ import annotations

#: Loss of Chinchilla (70B on 1.4T tokens) and Gopher (280B on 300B) from the coefficients of Hoffmann et al. 2022,
#: arXiv:2203.15556, approach 3, worked by hand; three decimals, no more.
CHINCHILLA_70B_LOSS = 1.937
GOPHER_280B_LOSS = 1.993
#: Kaplan et al. 2020, arXiv:2001.08361, table 2: N_c, D_c in tokens, and the exponents of both in L(N, D).
KAPLAN_2020 = (6.4e13, 1.8e13, 0.076, 0.103)
#: Muennighoff et al. 2023, arXiv:2305.16264: coefficients of the C4 fit as logarithms, R* of tokens and parameters.
C4_LOG_FLOOR, C4_LOG_A, C4_LOG_B, C4_EXPONENT = 0.6254804, 6.255335, 7.3049974, 0.3526596
C4_REPEATS, C4_EXCESS = 15.387756, 5.309743
#: The same paper: up to 4 epochs, repeated tokens are about as good as fresh ones.
EPOCHS_ALMOST_FREE = 4
