"""What `hetero doctor` looks at: this host, and a cluster.

machine.measure     this host
checks.examine      what of it stands in a run's way
ray_cluster.ask     what a cluster says of itself
guard               who could read or steer a cluster
links.probe         how fast the links of a job are
finding.Finding     what each of them says
report.report       all that drives a host's chips, to send to who can help
"""
