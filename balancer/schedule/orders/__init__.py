"""One file for each schedule; one that lies here is known by its name.

one_f_one_b  whose warm-ups the timed ones begin with
"""
