"""What `check` looks at beside the tree: the machine, the settings, the repository, the service, the daemon.

Each module is one probe: `look` asks the system and hands back a frozen record, `judge` is pure and says what is wrong
with it. `examination` calls them all; `bundle` puts what they saw into an archive for a bug report.
"""
