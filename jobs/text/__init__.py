"""Real text: corpora of tokens, the order in which a seed shows them, and mixtures of them; numpy only.

Which sequence is sample number `p` of a data seed is computed, not remembered: no loader has a state, and sample
10^12 costs what the first one does.
"""
