"""One host of a run: its agent, its processes, and what they are told.

agent.Agents         carry orders to all hosts, and events back; `LocalAgents` do so in this process
agent.Agent          the thread that one host lives in
shared_files         what must be at hand before its ranks start
processes.obituary   what the end of a process tells
spool                where checkpoints wait for the driver
loopback             whether this host can be listened on
"""
