"""Who runs where: the fleet, the session that drives a run, and what Ray has to do with it.

session.Session     a fleet whose ranks stand ready for one plan after another
fleet.FleetSpec     pools cut into hosts, and the links between pools
options.fleet_of    the fleet that the pools of a job file describe
private_folder      a folder that no other user enters
placement.place     which node of a cluster serves which host
errors              how a run ends badly
"""
