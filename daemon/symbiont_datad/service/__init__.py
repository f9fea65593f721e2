"""What ties the daemon to the machine: the service manager, and later probes and installation."""
