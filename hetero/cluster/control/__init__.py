"""The life of a run as a pure state machine, and what it hears and says.

controller.Controller  an event in, instructions out
events                 what it hears: from the driver's shell, from hosts, from the clock
instructions           what it says: orders to hosts, and notices, reports and answers to the shell
blame.failure          the one error that a user sees of many troubles
roll_call.RollCall     one part from each of many
"""
