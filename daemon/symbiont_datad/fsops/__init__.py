"""Every system call on the tree.

Nothing in here follows a symbolic link, crosses a mount point, or trusts a path: each part of a path is pinned with a
descriptor, and work goes on relative to it. That closes the races behind CVE-2017-18078, CVE-2018-6954 and
CVE-2011-1098, in which a privileged tool was led out of the directory it cared for.
"""
