"""What each stage does, in order: actions, the schedules that order them (`orders/`), and the lists that ranks obey."""
